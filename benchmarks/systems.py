"""Measures a system on noise: one evaluation of its network, enhancement of waveforms, the training step."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from benchmarks.figures import Figure, figure
from benchmarks.measure import drawn, peaks, program
from jax_diffse import config as configs
from jax_diffse import systems
from jax_diffse.networks.gmm_unet import GmmUNet
from jax_diffse.networks.ncsnpp import Ncsnpp
from jax_diffse.networks.noise_unet import NoiseUNet
from jax_diffse.systems.base import Refiner, System, Variables, sampling_steps
from jax_diffse.systems.continuous import Continuous
from jax_diffse.systems.dccrn import Dccrn
from jax_diffse.systems.diffgmm import DiffGmm
from jax_diffse.systems.diffiner import Diffiner
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.systems.noise_unet import NoiseUnet
from jax_diffse.systems.segan import Segan
from jax_diffse.training import state as state_lib
from jax_diffse.training.parallel import Parallel, wait_for_each_step


def run(name: str, config: str, dtype: str, batch: int, seconds: float, steps: list[int],
        repeats: int) -> Iterator[Figure]:
    """Figures of the system of `config`, 'NAME:VARIANTS', under `name`."""
    wait_for_each_step()
    system = make(config, dtype)
    settings = {'config': config, 'dtype': dtype, 'batch': batch, 'seconds': seconds}
    variables, inputs = drawn(system), noise(system, batch, seconds)
    size = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    yield figure(name, 'parameters', 'all groups', size, '1', 1, {'config': config})

    yield from program(name, 'forward', *evaluation(system, variables, inputs), repeats, settings)
    for count in steps if sampling_steps(system) else [None]:
        what = 'enhancement' if count is None else f'enhancement, {count} step{"s" if count > 1 else ""}'
        own = settings if count is None else settings | {'steps': count}
        for item in program(name, what, *enhancement(system, variables, inputs, count), repeats, own):
            yield item
        yield figure(name, 'real-time factor', what, item['value'] / (batch * seconds), 's/s', item['repeats'], own)
    parallel = Parallel(devices=jax.devices()[:1])
    yield from program(name, 'training step', *training(system, variables, inputs, parallel), repeats, settings)
    yield from peaks(name, settings)


def make(config: str, dtype: str) -> System:
    """The system of a config."""
    loaded = configs.load(config)
    (loaded.model if 'dtype' in loaded.model else loaded.model.network).dtype = dtype
    return systems.build(loaded.system, loaded.model)


def noise(system: System, batch: int, seconds: float) -> dict[str, jax.Array]:
    """Makes a batch of noise, in the form of the data pipeline."""
    num_samples = round(seconds * system.sample_rate)
    lengths = jnp.full(batch, num_samples)
    waves = {name: 0.1 * jax.random.normal(jax.random.key(i), (batch, num_samples))
             for i, name in enumerate(('clean', 'noisy'))}
    specs = {f'{name}_spec': system.front_end.analyze(x, lengths) for name, x in waves.items() if system.front_end}
    return {**waves, **specs, 'num_samples': lengths, 'index': jnp.arange(batch)}


# Each of these functions returns a jitted function and its arguments.


def evaluation(system: System, variables: Variables, inputs: dict[str, jax.Array]):
    """One evaluation of the trained network; of SEGAN the generator, of priors and the noise U-Net on whole blocks."""
    group = list(system.losses)[-1]
    own = {collection: groups[group] for collection, groups in variables.items() if group in groups}
    noisy, spec, lengths = inputs['noisy'], inputs.get('noisy_spec'), inputs['num_samples']
    level = jnp.full(len(noisy), 1)
    match system:
        case DrDiffuse(stage='diffusion'):
            network, args = system._network(group), (spec, spec, level, system.front_end.num_frames(lengths))
        case DrDiffuse():
            network, args = system._network(group), (spec, system.front_end.num_frames(lengths))
        case Dccrn():
            network, args = system._network(), (spec, system.front_end.num_frames(lengths))
        case Segan():
            whole = jnp.pad(noisy, ((0, 0), (0, -noisy.shape[1] % system.multiple)))
            network, args = system.networks[group], (whole,)
        case DiffGmm():
            network, args = GmmUNet(system.network), (noisy, noisy, level / system.training_steps, lengths)
        case NoiseUnet():
            shape = (len(noisy), system.frames, system.front_end.num_bins, 1)
            network, args = NoiseUNet(system.network), (jax.random.normal(jax.random.key(2), shape),)
        case Continuous():
            padded, _ = system.pair(inputs)
            network, args = Ncsnpp(system.network), (padded, padded, level / 2, system.padded_frames(lengths))
        case Diffiner():
            shape = (len(noisy), system.block_frames, system.front_end.num_bins - 1, 2)
            network, args = system.unet, (jax.random.normal(jax.random.key(2), shape), level)
    return jax.jit(network.apply), (own, *args)


def enhancement(system: System, variables: Variables, inputs: dict[str, jax.Array], steps: int | None):
    """Enhancement of waveforms; systems that refine get half the noisy waveform as the output to refine."""
    noisy, lengths = inputs['noisy'], inputs['num_samples']
    processed = (0.5 * noisy,) if isinstance(system, Refiner) else ()

    def enhance(variables, noisy, lengths, keys, processed=None):
        return system.enhance(variables, noisy, lengths, keys, steps=steps, processed=processed)

    return jax.jit(enhance), (variables, noisy, lengths, jax.random.split(jax.random.key(0), len(noisy)), *processed)


def training(system: System, variables: Variables, inputs: dict[str, jax.Array], parallel: Parallel):
    """The training step over the devices of `parallel`."""
    config = state_lib.OptimizerConfig()
    state = parallel.replicate(state_lib.create(system, config, 0.0, variables))
    return parallel.map(state_lib.make_train_step(system, config, steps=1, seed=0)), (state, parallel.shard(inputs))
