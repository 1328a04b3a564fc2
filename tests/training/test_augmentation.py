"""Samples in place of noisy inputs: what is replaced, by what, on any number of devices, and what is refused."""

import dataclasses
import fractions
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict

from jax_diffse import runs, systems
from jax_diffse.data import tf_spectral
from jax_diffse.errors import UserError
from jax_diffse.systems import base
from jax_diffse.systems.dccrn import Dccrn, LossWeights
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.training import state as state_lib
from jax_diffse.training.augmentation import Augmentation
from jax_diffse.training.initial import initial_variables
from jax_diffse.training.loop import train
from jax_diffse.training.parallel import Parallel
from jax_diffse.training.settings import AugmentConfig, TrainConfig
from jax_diffse.training.state import OptimizerConfig
from tests import toys
from tests.reference import random_variables

FRONT_END = toys.Trainable().front_end
LENGTHS = np.array([4000, 2400, 3000, 4000, 1700, 4000, 2000, 900], np.int32)


@dataclasses.dataclass(frozen=True)
class Sampler(base.Sampling, toys.Toy):
    """Adds the noise of each example's key to its noisy input, times a parameter, over the number of steps."""

    sample_rate: int = 16_000
    default_steps = 3

    def check_steps(self, steps):
        if not 1 <= steps <= 10:
            raise ValueError('takes 1 to 10 sampling steps')

    def init(self, key):
        return {'params': {'sampler': {'scale': jnp.float32(2)}}, 'batch_stats': {'sampler': {}}}

    def _stages(self, variables, noisy, num_samples, key, gain, steps, processed):
        noise = jax.vmap(lambda k: jax.random.normal(k, noisy.shape[1:]))(key)
        sample = variables['params']['sampler']['scale'] * noisy / (steps or 3) + 0.1 * noise
        return {'first': noisy, 'sample': toys.mask_frames(sample, num_samples)}


def make_batch(batch_size: int = 8, front_end=FRONT_END, seed: int = 0) -> dict[str, np.ndarray]:
    """A training batch as the pipeline makes it: at unit RMS of the noisy waveform."""
    rng, lengths = np.random.default_rng(seed), LENGTHS[:batch_size]
    waves = 0.1 * rng.standard_normal((2, batch_size, 4000)) * (np.arange(4000) < lengths[:, None])
    waves /= np.sqrt(np.sum(waves[1]**2, axis=-1) / lengths)[:, None]
    waves = jnp.asarray(waves, jnp.float32)
    specs = [np.asarray(front_end.analyze(x, jnp.asarray(lengths))) for x in waves]
    return {'clean': np.asarray(waves[0]), 'noisy': np.asarray(waves[1]), 'clean_spec': specs[0],
            'noisy_spec': specs[1], 'num_samples': lengths, 'index': 40 + np.arange(batch_size)}


def make(share: float = 0.5, steps: int = 3, system=None) -> Augmentation:
    run = toys.run(system or Sampler())
    return Augmentation(run, fractions.Fraction(share).limit_denominator(100), steps)


def augmented(batch, devices: int = 1, mapper: str = 'shard_map', accumulate: int = 1, share: float = 0.5):
    parallel = Parallel(mapper, jax.devices()[:devices])
    settings = TrainConfig(steps=1, batch_size=len(batch['index']), accumulate=accumulate, seed=7)
    found = jax.device_get(make(share).placing(parallel, FRONT_END, settings)(batch))
    return {name: x.reshape(batch[name].shape) for name, x in found.items()}  # pmap has an axis of devices


@pytest.fixture(scope='module')
def alone():
    return augmented(make_batch())


def test_a_share_of_the_inputs_are_samples_with_the_same_target(alone):
    """Position p is replaced if floor((p + 1) / 2) > floor(p / 2), that is, if p is odd; the rest is untouched."""
    before = make_batch()
    for name in before:
        np.testing.assert_array_equal(alone[name][::2], before[name][::2])
    for p in range(1, 8, 2):
        noise = alone['noisy'][p] / np.linalg.norm(alone['noisy'][p])
        assert abs(noise @ before['noisy'][p] / np.linalg.norm(before['noisy'][p])) < 0.9999
        cosine = alone['clean'][p] @ before['clean'][p] / np.linalg.norm(alone['clean'][p]) / np.linalg.norm(
            before['clean'][p])
        assert cosine == pytest.approx(1, abs=1e-6)


def test_a_sample_is_drawn_from_its_own_input_with_the_key_of_its_example(alone):
    """Against the formula of the toy, with a key made here from the seed, the purpose and the example's index."""
    before = make_batch()
    for p in range(1, 8, 2):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 2**32 - 1), 40 + p)
        sample = 2 / 3 * before['noisy'][p] + 0.1 * np.asarray(jax.random.normal(key, (4000,)))
        sample[LENGTHS[p]:] = 0
        gain = np.sqrt(LENGTHS[p] / np.sum(sample**2))
        np.testing.assert_allclose(alone['noisy'][p], gain * sample, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone['clean'][p], gain * before['clean'][p], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('front_end', [FRONT_END, Dccrn(channels=(4, 8), lstm_units=4).front_end],
                         ids=['dr_diffuse', 'dccrn'])
def test_spectrograms_are_those_that_the_pipeline_makes(front_end):
    """Against the front end in TensorFlow, on the waveform without its padding."""
    settings = TrainConfig(steps=1, batch_size=8)
    place = make().placing(Parallel(devices=jax.devices()[:1]), front_end, settings)
    found = jax.device_get(place(make_batch(front_end=front_end)))
    for p, name in ((1, 'noisy'), (3, 'clean'), (7, 'noisy')):
        spec = tf_spectral.analyze(front_end, found[name][p:p + 1, :LENGTHS[p]]).numpy()[0]
        np.testing.assert_allclose(found[f'{name}_spec'][p, :len(spec)], spec, atol=2e-4)
        assert not np.any(found[f'{name}_spec'][p, len(spec):])


@pytest.mark.parametrize(('devices', 'mapper', 'accumulate'), [
    (2, 'shard_map', 1), (4, 'shard_map', 1), (1, 'shard_map', 4), (2, 'shard_map', 2), (2, 'pmap', 1),
    (4, 'pmap', 1), (1, 'pmap', 2)])
def test_devices_mappers_and_parts_draw_the_same_samples(alone, devices, mapper, accumulate):
    found = augmented(make_batch(), devices, mapper, accumulate)
    for name in alone:
        np.testing.assert_allclose(found[name], alone[name], atol=1e-5, err_msg=name)


def test_the_weights_of_the_sampler_are_an_argument_of_the_program():
    """One compiled program gives the samples of the weights that it is called with."""
    parallel, batch = Parallel(devices=jax.devices()[:1]), make_batch()
    step = parallel.map(make().make_step(None, 7, 1), sharded=True)

    def samples(scale):
        variables = {'params': {'sampler': {'scale': jnp.float32(scale)}}, 'batch_stats': {'sampler': {}}}
        return np.asarray(step(variables, parallel.shard(batch))['noisy'])[1::2]

    np.testing.assert_allclose(samples(5.0) - samples(2.0), batch['noisy'][1::2], atol=1e-5)  # (5 - 2) / 3 steps
    assert step._cache_size() == 1


@pytest.mark.parametrize(('share', 'count', 'expected'), [
    (0.5, 4, [1, 3]), (1.0, 3, [0, 1, 2]), (0.25, 8, [3, 7]), (0.29, 100, None), (0.75, 4, [1, 2, 3])])
def test_positions_are_those_of_the_global_batch(share, count, expected):
    """floor((p + 1) share) > floor(p share); the pattern of one device goes on, on the next one."""
    positions = make(share).positions(count)
    assert len(positions) == round(share * count)
    assert expected is None or list(positions) == expected
    np.testing.assert_array_equal(make(share).positions(2 * count), [*positions, *(positions + count)])


@pytest.mark.parametrize(('batch_size', 'parts', 'share', 'usable'), [(4, 4, 0.5, 8), (8, 2, 0.3, 20), (6, 2, 0.25, 8)])
def test_a_share_that_is_no_whole_number_names_usable_batch_sizes(batch_size, parts, share, usable):
    with pytest.raises(UserError, match=f'share={share}: makes .* of {batch_size // parts} example.* a multiple of '
                                        f'{usable}, not {batch_size}'):
        make(share).check_batch_size(batch_size, parts)
    make(share).check_batch_size(usable, parts)


SYSTEMS = {
    'dr_diffuse': DrDiffuse(channels=4, temporal_groups=1),
    'dccrn': Dccrn(channels=(4, 8), lstm_units=4, loss=LossWeights(si_snr=1.0)),
}


@pytest.mark.slow  # compiles a sampler and a training for each number of devices
@pytest.mark.parametrize('system', SYSTEMS.values(), ids=SYSTEMS)
def test_training_on_samples_of_dr_diffuse_is_the_same_on_any_number_of_devices(system):
    """The sampler is DR-DiffuSE of the stage diffusion; two steps, the second from the weights of the first."""
    sampler = DrDiffuse(stage='diffusion', channels=4, temporal_groups=1)
    run = runs.Run(sampler, random_variables(base.shapes(sampler)), None, 7, 'abc', pathlib.Path('toy'))
    batches = [make_batch(front_end=system.front_end, seed=i) for i in range(2)]

    def losses(devices, share=0.5):
        parallel = Parallel(devices=jax.devices()[:devices])
        config, settings = OptimizerConfig(learning_rate=1e-4), TrainConfig(steps=2, batch_size=8)
        place = parallel.shard
        if share:
            place = Augmentation(run, fractions.Fraction(share), 2).placing(parallel, system.front_end, settings)
        step = parallel.map(state_lib.make_train_step(system, config, steps=2, seed=0))
        state = parallel.replicate(state_lib.create(system, config, 0.0, system.init(jax.random.key(0))))
        found = []
        for batch in batches:
            state, metrics = step(state, place(batch))
            found.append(float(next(value for name, value in metrics.items() if name.endswith('/loss'))))
        return found

    one = losses(1)
    for devices in (2, 4):
        np.testing.assert_allclose(losses(devices), one, rtol=1e-3)
    assert np.all(np.abs(np.subtract(losses(1, 0), one)) > 1e-2 * np.abs(one))


# ----------------------------------------------------------------------------------------------------------- whole runs


@dataclasses.dataclass(frozen=True)
class Slow(Sampler):
    sample_rate: int = 8000


class Plain(toys.Toy):
    def init(self, key):
        return Sampler.init(self, key)


class Prior(toys.Refiner):
    def init(self, key):
        return Sampler.init(self, key)


@pytest.fixture(autouse=True)
def toy_systems(monkeypatch):
    for name, system in (('toy', toys.Trainable), ('sampler', Sampler), ('slow', Slow), ('plain', Plain),
                         ('prior', Prior)):
        monkeypatch.setitem(systems.SYSTEMS, name, system)


@pytest.fixture
def world(tmp_path):
    """Eight pairs, and a run of every toy without a training."""
    rng = np.random.default_rng(0)
    for kind, scale in (('clean', 0.1), ('noisy', 0.3)):
        (tmp_path / kind).mkdir()
        for i in range(8):
            soundfile.write(tmp_path / kind / f'{i}.wav', scale * rng.standard_normal(8000 + 500 * i), 16_000)
    for name in ('sampler', 'slow', 'plain', 'prior'):
        config = ConfigDict({'system': name, 'model': {}})
        runs.save(tmp_path / name, config, systems.SYSTEMS[name]().init(None))
    return tmp_path


def make_config(world, augment: dict | None = None, **train_keys) -> ConfigDict:
    folders = {'clean': str(world / 'clean'), 'noisy': str(world / 'noisy')}
    config = ConfigDict({
        'system': 'toy', 'model': {}, 'data': {'name': 'folders', 'train': folders, 'validation': {}},
        'train': {'steps': 4, 'batch_size': 4, 'crop_seconds': 0.25, 'eval_every': 2, 'save_every': 2, 'log_every': 2,
                  **train_keys},
        'optimizer': {'learning_rate': 1e-3}, 'log': {'audio_examples': 0}, 'parallel': {}})
    if augment is not None:
        config.augment = ConfigDict({**augment, 'run': str(world / augment['run']) if augment.get('run') else ''})
    return config.lock()


def test_a_run_keeps_what_its_data_were_augmented_with_but_not_the_sampler(world, tmp_path, capsys):
    train(make_config(world, {'run': 'sampler', 'share': 0.25, 'steps': 2}, batch_size=8 * len(jax.devices())),
          tmp_path / 'run')
    run, sampler = runs.load(tmp_path / 'run'), runs.load(world / 'sampler')
    assert run.history['augment'] == {'share': 0.25, 'steps': 2, 'workdir': str(world / 'sampler'), 'step': 0,
                                      'hash': sampler.hash, 'history': {}}
    assert run.history['data'].endswith(f'; 0.25 of the noisy inputs replaced by samples of {world / "sampler"}, '
                                        f'step 0, checkpoint {sampler.hash[:12]}, 2 sampling steps')
    assert run.history['data'].partition('; 0.25')[2] in capsys.readouterr().out
    assert set(run.variables['params']) == {'toy'}


def test_a_resumed_run_draws_the_samples_of_the_uninterrupted_one(world, tmp_path):
    augment, size = {'run': 'sampler', 'share': 0.5}, 2 * len(jax.devices())
    whole = train(make_config(world, augment, batch_size=size), tmp_path / 'whole')
    train(make_config(world, augment, batch_size=size, steps=2), tmp_path / 'half')
    assert train(make_config(world, augment, batch_size=size), tmp_path / 'half') == whole
    assert train(make_config(world, batch_size=size), tmp_path / 'without') != whole
    for changed, message in (({**augment, 'steps': 5}, 'augment.steps was 0, is 5'),
                             (None, "augment.hash was '.*', is ''; augment.run .*; augment.share was 0.5, is 0.0")):
        with pytest.raises(UserError, match=message):
            train(make_config(world, changed, batch_size=size), tmp_path / 'half')


def test_a_sampler_that_was_trained_on_meanwhile_is_refused(world, tmp_path):
    augment, size = {'run': 'sampler', 'share': 0.5}, 2 * len(jax.devices())
    train(make_config(world, augment, batch_size=size, steps=2), tmp_path / 'run')
    (world / 'sampler').rename(world / 'earlier')
    runs.save(world / 'sampler', ConfigDict({'system': 'sampler', 'model': {}}),
              {'params': {'sampler': {'scale': jnp.float32(3)}}, 'batch_stats': {'sampler': {}}})
    with pytest.raises(UserError, match="another config .augment.hash was '.*', is '.*'.; use the old values"):
        train(make_config(world, augment, batch_size=size), tmp_path / 'run')


def test_a_run_from_before_the_section_resumes_with_its_defaults(world, tmp_path):
    size = len(jax.devices())
    train(make_config(world, batch_size=size, steps=2), tmp_path / 'run')
    result = train(make_config(world, {'run': '', 'share': 0.0, 'steps': 0}, batch_size=size), tmp_path / 'run')
    assert result['step'] == 4


@pytest.mark.parametrize(('augment', 'system', 'message'), [
    ({'run': 'sampler', 'share': 1.5}, 'toy', r'config.augment.share must be in \[0, 1\], got 1.5'),
    ({'run': 'sampler', 'share': -0.5}, 'toy', r'config.augment.share must be in \[0, 1\], got -0.5'),
    ({'run': 'sampler', 'steps': -1}, 'toy', 'config.augment.steps must be 0 .* or more, got -1'),
    ({'run': 'sampler', 'share': 0.5, 'steps': 11}, 'toy', 'config.augment.steps=11: takes 1 to 10 sampling steps'),
    ({'share': 0.5}, 'toy', 'config.augment.share=0.5: name the run that draws the samples, config.augment.run or'),
    ({'run': 'gone', 'share': 0.5}, 'toy', 'gone: not a run'),
    ({'run': 'plain', 'share': 0.5}, 'toy', 'config.augment.run=.*plain: does not sample, expected'),
    ({'run': 'prior', 'share': 0.5}, 'toy', "config.augment.run=.*prior: refines another enhancer's output"),
    ({'run': 'slow', 'share': 0.5}, 'toy', 'config.augment.run=.*slow: works at 8000 Hz, expected the 16000 Hz'),
    ({'run': 'sampler', 'share': 0.5}, 'prior', 'config.augment.share=0.5: this system learns from clean speech alone'),
    ({'run': 'sampler', 'shares': 0.5}, 'toy', 'config.augment.shares: unknown key'),
])
def test_mistakes_are_refused_before_anything_is_written(world, tmp_path, augment, system, message):
    config = make_config(world, augment, batch_size=2 * len(jax.devices()))
    with config.unlocked():
        config.system = system
    with pytest.raises(UserError, match=message) as refused:
        train(config, tmp_path / 'run')
    assert '\n' not in str(refused.value) and not (tmp_path / 'run').exists()


def test_c_gen_starts_from_that_of_a_run_of_the_stage_diffusion(tmp_path):
    """As the stages augmented and control of the config dr_diffuse do; the run of the refiner has it, too."""
    size = {'channels': 4, 'temporal_groups': 1}
    for stage in ('diffusion', 'refiner'):
        variables = random_variables(base.shapes(DrDiffuse(stage=stage, **size)))
        config = ConfigDict({'system': 'dr_diffuse', 'model': {'stage': stage, **size}})
        runs.save(tmp_path / stage, config, variables)
        found = initial_variables(DrDiffuse(stage='c_gen', **size), jax.random.key(0), str(tmp_path / stage))
        for collection in ('params', 'batch_stats'):
            assert set(found[collection]) == {'c_gen'}
            jax.tree.map(np.testing.assert_array_equal, found[collection]['c_gen'], variables[collection]['c_gen'])


def test_share_zero_needs_no_run_and_says_that_one_is_without_effect(world, caplog):
    assert Augmentation.load(AugmentConfig(), '', toys.Trainable()) is None and not caplog.text
    assert Augmentation.load(AugmentConfig(run=str(world / 'gone')), '', toys.Trainable()) is None
    assert 'config.augment.run: without effect, as config.augment.share is 0' in caplog.text
