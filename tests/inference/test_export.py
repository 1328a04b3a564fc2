"""Exported functions, called without this package, against `Enhancer`."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jax_diffse import platforms, runs
from jax_diffse.cli import run as command_line
from jax_diffse.errors import UserError
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.inference.export import export
from jax_diffse.networks.compact_unet import CompactUNetConfig
from jax_diffse.networks.gmm_unet import GmmUNetConfig
from jax_diffse.networks.guided_unet import UNetConfig
from jax_diffse.networks.ncsnpp import NcsnppConfig
from jax_diffse.networks.noise_unet import NoiseUNetConfig
from jax_diffse.runs import Run
from jax_diffse.systems.base import Refiner, shapes
from jax_diffse.systems.bridge import SchroedingerBridge
from jax_diffse.systems.compact_diffiner import CompactDiffiner
from jax_diffse.systems.dccrn import Dccrn
from jax_diffse.systems.diffgmm import DiffGmm
from jax_diffse.systems.diffiner import Diffiner
from jax_diffse.systems.dr_diffuse import DrDiffuse
from jax_diffse.systems.flowse import FlowSe
from jax_diffse.systems.noise_unet import NoiseUnet
from jax_diffse.systems.segan import Segan
from jax_diffse.systems.sgmse import Sgmse
from tests import reference, toys

ROOT = pathlib.Path(__file__).parents[2]
RATE = 16_000
SHORT, SEED = 9000, 5
MODEL = {'channels': (4, 8, 8), 'lstm_units': 8}
PRIOR = UNetConfig(channels=4, multipliers=(1, 1, 1, 1), blocks=1, attention=(), heads=1, groups=2)
SCORE = {'network': NcsnppConfig(4, (1, 1, 1), 1, ())}
MIXTURE = GmmUNetConfig(components=2, widths=(4, 8), blocks=1, kernel=5, groups=2)
SYSTEMS = {
    'dccrn': Dccrn(**MODEL),
    'segan': Segan(channels=(2, 4), segment=4096, overlap=256),
    'dr_diffuse': DrDiffuse('c_gen', channels=4, temporal_groups=1),
    'noise_unet': NoiseUnet(RATE, network=NoiseUNetConfig((2, 4, 4))),
    'diffgmm': DiffGmm(network=MIXTURE, training_steps=4, steps=3, noise_scale=0.3),
    'diffiner': Diffiner(PRIOR, block_frames=64, respacing='ddim4'),
    'compact_diffiner': CompactDiffiner(CompactUNetConfig(widths=(2, 4), heads=1), block_frames=64, respacing='3'),
    'sgmse': Sgmse(**SCORE),
    'bridge': SchroedingerBridge(**SCORE, sampler='sde', steps=2),
    'flowse': FlowSe(**SCORE, steps=2),
}
STEPS = {'diffgmm': 2, 'diffiner': 2, 'sgmse': 2}
PRECEDING = {'compact_diffiner': 'segan'}
LOADER = """
import pathlib, sys
import jax.export
import numpy as np

for path in pathlib.Path().glob('*.bin'):
    enhance = jax.export.deserialize(path.read_bytes()).call
    for call in path.parent.glob(f'{path.stem}.*.npz'):
        np.save(call.with_suffix('.npy'), enhance(*np.load(call).values()))
assert not [name for name in sys.modules if name.startswith('jax_diffse')]
"""


def noise(*shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def run_of(name):
    return Run(SYSTEMS[name], reference.random_variables(shapes(SYSTEMS[name])), None, 0, '', pathlib.Path(name))


def in_fresh_process(code, folder):
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]


def long_recording(seed):
    """Two chunks of one level."""
    half = noise(RATE, seed=seed)
    return np.concatenate([half, half[::-1]])


def short_recording(seed):
    return noise(SHORT, seed=seed + 1)


def in_two(seed):
    """The long recording as a batch of its chunks."""
    return long_recording(seed).reshape(2, RATE)


def beside_silence(seed):
    """The short recording followed by garbage, and silence."""
    return np.stack([np.concatenate([short_recording(seed), noise(RATE - SHORT, seed=seed + 2)]),
                     np.zeros(RATE, np.float32)])


@pytest.fixture(scope='module')
def called(tmp_path_factory):
    """(name, call) -> the output of a system's exported function, in a process with only JAX and NumPy."""
    folder = tmp_path_factory.mktemp('exported')
    for name in SYSTEMS:
        preceding = run_of(PRECEDING[name]) if name in PRECEDING else None
        exported = export(run_of(name), chunk_seconds=1.0, batch=2, steps=STEPS.get(name), preceding=preceding)
        assert exported.platforms == ('cpu', 'cuda', 'tpu') and exported.fun_name == 'enhance_at_16000_hz'
        (folder / f'{name}.bin').write_bytes(exported.serialize())
        seeds = (0, 10)[:len(exported.in_avals) - 2]
        for call, pack, lengths in (('long', in_two, (RATE, RATE)), ('short', beside_silence, (SHORT, 7))):
            noisy, *processed = (pack(seed) for seed in seeds)
            np.savez(folder / f'{name}.{call}.npz', noisy, np.array(lengths, np.int32), np.uint32(SEED), *processed)
    in_fresh_process(LOADER, folder)
    return {(name, call): np.load(folder / f'{name}.{call}.npy') for name in SYSTEMS for call in ('long', 'short')}


@pytest.mark.parametrize('name', SYSTEMS)
def test_exported_functions_agree_with_the_enhancer(called, name):
    preceding = run_of(PRECEDING[name]) if name in PRECEDING else None
    enhancer = Enhancer(run_of(name), preceding=preceding, chunk_seconds=1.0, overlap_seconds=0.0, seed=SEED,
                        steps=STEPS.get(name))
    given = isinstance(SYSTEMS[name], Refiner) and preceding is None
    for call, record in (('long', long_recording), ('short', short_recording)):
        noisy, processed = record(0), record(10) if given else None
        expected = enhancer(noisy, RATE, processed=processed)
        found = called[name, call]
        assert found.dtype == np.float32 and found.shape == (2, RATE)
        enhanced = found.reshape(-1)[:len(noisy)]
        assert np.std(expected) > 1e-3
        np.testing.assert_allclose(enhanced, expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)))
    assert not called[name, 'short'][0, SHORT:].any() and not called[name, 'short'][1].any()


# ---------------------------------------------------------------------------------------------------------- platforms


@pytest.mark.parametrize(('targets', 'dilated', 'loops'), [
    (('cpu',), False, True), (('cuda',), True, False), (('tpu', 'rocm'), True, False), (('cpu', 'cuda'), True, True)])
def test_every_platform_gets_its_implementation(targets, dilated, loops):
    """On CPUs, SEGAN's transposed convolutions are matrix products, and its segments run one by one."""
    program = export(run_of('segan'), targets, chunk_seconds=1.0).mlir_module()
    assert ('lhs_dilate = [1, 2]' in program) == dilated
    assert ('stablehlo.while' in program) == loops
    assert ('stablehlo.case' in program) == (len(targets) > 1)


def test_the_implementation_is_chosen_anew_within_compiled_functions():
    function = jax.jit(lambda x: platforms.per_platform(lambda x: x + 1, lambda x: x + 2, x))
    assert function(0) == 1
    for targets, expected in ((('cuda',), 2), (('cpu',), 1), (('tpu', 'cpu'), 1)):
        with platforms.exporting(targets):
            assert function(0) == expected
    assert function(0) == 1 and platforms.targets() == {'cpu'}


def test_each_implementation_is_traced_only_for_its_platforms():
    seen = []

    def look(x):
        seen.append(platforms.targets())
        return x

    with platforms.exporting(('cpu', 'cuda', 'tpu')):
        jax.make_jaxpr(lambda x: platforms.per_platform(look, lambda x: look(2 * x), x))(1.0)
    assert seen == [{'cpu'}, {'cuda', 'tpu'}]


# ------------------------------------------------------------------------------------------------------------ command


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A saved run with random variables."""
    path = tmp_path_factory.mktemp('run')
    runs.save(path, ConfigDict({'system': 'dccrn', 'model': MODEL}),
                         reference.random_variables(shapes(SYSTEMS['dccrn'])), step=3)
    return str(path)


def test_the_page_loads_what_the_command_wrote(workdir, tmp_path, capsys):
    """The code of the page enhances a short recording, and a long one in chunks."""
    page = (ROOT / 'docs' / 'export.md').read_text(encoding='utf-8')
    command_line(['export', workdir, str(tmp_path / 'made' / 'dccrn.bin'), '--platforms', 'cpu',
                  '--chunk-seconds', '2'])
    printed = capsys.readouterr().out
    assert re.fullmatch(r'\S+dccrn\.bin: 0\.\d MB for cpu: \(noisy f32\[1,32000\], num_samples i32\[1\], '
                        r'seed u32\[\]\) -> f32\[1,32000\], at 16000 Hz\n', printed)
    assert [path.name for path in (tmp_path / 'made').iterdir()] == ['dccrn.bin']

    short, long = noise(SHORT), noise(2 * RATE + 2 * (2 * RATE - RATE // 4), seed=1)
    for name, samples in (('noisy', short), ('long', long)):
        np.save(tmp_path / 'made' / f'{name}.npy', samples)
    code = '\n'.join(re.findall(r'^```python\n(.*?)^```', page, re.MULTILINE | re.DOTALL))
    in_fresh_process(f'{code}\nimport sys\nassert "jax_diffse" not in sys.modules', tmp_path / 'made')
    run = runs.load(workdir)
    enhancer = Enhancer(run, chunk_seconds=2.0, overlap_seconds=0.25)
    for name, samples, tolerance in (('enhanced', short, 1e-4), ('enhanced_long', long, 1e-5)):
        np.testing.assert_allclose(np.load(tmp_path / 'made' / f'{name}.npy'), enhancer(samples, RATE), atol=tolerance)


def test_flags_reach_the_function(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, 'load',
                        lambda workdir, **named: asked.append((workdir, named)) or toys.run(toys.Stepped()))
    command_line(['export', 'run', str(tmp_path / 'out.bin'), '--platforms', 'cpu',
                  '--chunk-seconds', '0.5', '--batch', '3',
          '--steps', '4', '--checkpoint', '12', '--model', 'guidance=none'])
    assert asked == [('run', {'step': 12, 'model': {'guidance': 'none'}})]
    exported = jax.export.deserialize((tmp_path / 'out.bin').read_bytes())
    noisy = noise(3, RATE // 2)
    enhanced = exported.call(noisy, np.full(3, RATE // 2, np.int32), np.uint32(0))
    np.testing.assert_allclose(enhanced, noisy / 4, atol=1e-6)
    with pytest.raises(ValueError, match='expected .3, 8000. and called with .2, 8000.'):
        exported.call(noisy[:2], np.full(2, RATE // 2, np.int32), np.uint32(0))


def test_rows_draw_the_noise_of_chunks():
    """Draws depend only on the seed and the row."""
    exported = export(toys.run(toys.Noise()), ('cpu',), chunk_seconds=0.5, batch=3)
    noisy, lengths = jnp.asarray(noise(1, RATE // 2)).repeat(3, axis=0), np.full(3, RATE // 2, np.int32)
    first, other = (np.asarray(exported.call(noisy, lengths, np.uint32(seed))) for seed in (0, 1))
    correlations = np.corrcoef([*first, *other])
    assert np.max(np.abs(correlations - np.eye(6))) < 0.1
    np.testing.assert_array_equal(exported.call(noisy.at[0].set(1.0), lengths, np.uint32(0))[1:], first[1:])


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--platforms', 'gpu'], "--platforms: unknown platform 'gpu', expected some of cpu,cuda,rocm,tpu"),
    (['--platforms', ''], "--platforms: unknown platform ''"),
    (['--steps', '3'], 'steps=3: Dccrn does not sample'),
    (['--chunk-seconds', '0'], '--chunk-seconds=0: expected'),
    (['--chunk-seconds', '-1'], '--chunk-seconds=-1: expected'),
    (['--chunk-seconds', 'nan'], '--chunk-seconds=nan: expected'),
    (['--batch', '0'], '--batch=0: expected at least 1'),
    (['--checkpoint', '4'], 'no checkpoint of step 4; available: 3'),
    (['--model', 'channel=3'], 'config.model.channel: unknown key'),
    (['--preceding', 'RUN'], 'refines nothing'),
])
def test_wrong_settings_are_named(workdir, tmp_path, arguments, message):
    arguments = [workdir if argument == 'RUN' else argument for argument in arguments]
    with pytest.raises(UserError, match=re.escape(message)):
        command_line(['export', workdir, str(tmp_path / 'out.bin'), *arguments])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('output', 'message'), [('.', 'is a folder'), ('file/out.bin', 'cannot be written')])
def test_outputs_that_cannot_be_written(workdir, tmp_path, output, message):
    (tmp_path / 'file').write_text('kept')
    with pytest.raises(UserError, match=message):
        command_line(['export', workdir, str(tmp_path / output)])
    assert (tmp_path / 'file').read_text() == 'kept' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(('error', 'raised'), [(OSError(28, 'No space left'), UserError), (ValueError(), ValueError)])
def test_no_partial_file_is_left(workdir, tmp_path, monkeypatch, error, raised):
    def fail(self):
        raise error

    monkeypatch.setattr(jax.export.Exported, 'serialize', fail)
    (tmp_path / 'out.bin').write_text('an earlier one')
    with pytest.raises(raised):
        command_line(['export', workdir, str(tmp_path / 'out.bin'), '--platforms', 'cpu',
                      '--chunk-seconds', '0.1'])
    assert (tmp_path / 'out.bin').read_text() == 'an earlier one' and len(list(tmp_path.iterdir())) == 1
