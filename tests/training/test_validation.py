"""Validations within a training: what they leave alone, log and judge by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from jax_diffse import runs, systems
from jax_diffse.errors import UserError
from jax_diffse.inference.enhancer import Enhancer
from jax_diffse.spectral import FrontEnd
from jax_diffse.systems.base import Refiner
from jax_diffse.training import checkpoints, parallel, setup, validation
from jax_diffse.training.loop import train
from jax_diffse.training.settings import LogConfig
from tests.toys import Trainable
from tests.training.tiny import make_config


@pytest.mark.parametrize('mapper', parallel.MAPPERS)
def test_a_validation_leaves_weights_and_optimiser_on_their_devices(corpus, tmp_path, monkeypatch, mapper):
    judged, saved = [], []
    after_validation = validation.state_lib.after_validation
    monkeypatch.setattr(validation.state_lib, 'after_validation',
                        lambda state, *args: judged.append(state) or after_validation(state, *args))
    monkeypatch.setattr(checkpoints.Checkpoints, 'save', lambda self, state, *_: saved.append(state))
    config = make_config(corpus, steps=1)
    with config.unlocked():
        config.parallel.mapper = mapper
    loss = train(config, tmp_path)['validation_loss']
    (before,), (after,) = judged, saved
    for name in ('step', 'params', 'batch_stats', 'opt_state', 'ema'):
        ours, theirs = (jax.tree.leaves(getattr(state, name)) for state in (before, after))
        assert all(a is b and isinstance(b, jax.Array) for a, b in zip(ours, theirs, strict=True))
    assert float(after.best) == np.float32(loss) and all(leaf.sharding.is_equivalent_to(after.step.sharding, leaf.ndim)
                                                         for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize('sign', [1, -1])
def test_a_run_whose_validations_were_inverted_is_loaded_upright(corpus, tmp_path, sign):
    """Half of all networks invert at first, and SI-SNR does not mind. Of these two, one is the other negated."""
    config = make_config(corpus, steps=1, save_every=1, eval_every=1)
    with config.unlocked():
        config.init_from = str(tmp_path / 'first')
        config.system, config.model = 'dccrn', {'channels': (2, 4), 'lstm_units': 4, 'lstm_layers': 1}
        config.data.train.clean = config.data.train.noisy
        config.optimizer.learning_rate = 1e-9
    system = systems.build(config.system, config.model)
    drawn = system.init(jax.random.key(0))
    runs.save(tmp_path / 'first', config, drawn if sign > 0 else system.negated(drawn))
    train(config, tmp_path / 'run')
    run = runs.load(tmp_path / 'run')
    stored = runs.history_of(tmp_path / 'run')['inverted']
    expected = system.negated(drawn) if stored == (sign > 0) else drawn
    for ours, theirs in zip(jax.tree.leaves(run.variables['params']), jax.tree.leaves(expected['params']), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    noisy, rate = soundfile.read(corpus / 'noisy' / '0.wav')
    assert np.vdot(Enhancer(run)(noisy, rate), noisy) > 0


def test_audio_examples_run_on_one_device():
    class Log:
        def audio(self, *sound):
            pass

    class Source:
        def __len__(self):
            return 1

        def read(self, i):
            return np.ones((2, 800), np.float32)

        def info(self, i):
            return {'id': 'a'}

    def listen(variables, noisy, num_samples, key):
        heard.append(variables)
        return noisy

    heard, weights = [], parallel.Parallel().replicate({'a': np.ones(3, np.float32)})
    validation.log_audio(Log(), 1, Trainable(), listen, weights, Source(), 1)
    first = weights['a'].addressable_data(0)
    assert heard[0]['a'].unsafe_buffer_pointer() == first.unsafe_buffer_pointer()
    assert heard[0]['a'].devices() == first.devices()


class Recorded:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.sounds, self.values, self.texts = {}, {}, []

    def audio(self, step, name, waveform, sample_rate):
        self.sounds[name] = waveform

    def scalars(self, step, values, text):
        self.values.update(values)
        self.texts.append(text)

    def message(self, text):
        self.texts.append(text)


class Utterances:
    """Modulated noise of a second; `enhanced` adds noise at a level of its own to each, or is silent."""

    levels = (0.02, 0.0, 0.3, None, 0.1)

    def __len__(self):
        return len(self.levels)

    def info(self, i):
        return {'id': f'u{i}'}

    def read(self, i):
        rng = np.random.default_rng(i)
        clean = 0.1 * np.sin(np.arange(16_000) / 700) * np.convolve(rng.standard_normal(16_000), np.ones(8) / 8, 'same')
        return clean.astype(np.float32), np.full(16_000, i / 10, np.float32)  # the noisy speech says which it is

    def enhanced(self, i):
        level, clean = self.levels[i], self.read(i)[0]
        noise = np.random.default_rng(i).standard_normal(16_000)
        return np.zeros_like(clean) if level is None else (clean + level * 0.1 * noise).astype(np.float32)

    def listen(self, variables, noisy, num_samples, key):
        i = round(float(noisy[0, 0]) * 10)
        return np.pad(self.enhanced(i), (0, noisy.shape[1] - 16_000))[None]


@pytest.mark.parametrize(('rate', 'metric', 'mode'), [(16_000, 'pesq_wb', 'wb'), (8000, 'pesq_nb', 'nb')])
def test_the_best_and_the_worst_utterance_in_pesq_are_logged(rate, metric, mode):
    """Against the package pesq; the silent one has no PESQ and is left out."""
    import pesq

    log, source = Recorded(), Utterances()
    system = Trainable(front_end=FrontEnd(sample_rate=rate))
    validation.log_best_and_worst(log, 3, system, source.listen, {}, source, 99)
    scores = {i: pesq.pesq(rate, source.read(i)[0], source.enhanced(i), mode) for i in (0, 1, 2, 4)}
    assert (max(scores, key=scores.get), min(scores, key=scores.get)) == (1, 2)
    for name, i in (('best', 1), ('worst', 2)):
        np.testing.assert_allclose(log.values[f'validation/{metric}/{name}'], scores[i], rtol=1e-4)
        for stage, waveform in zip(('clean', 'noisy', 'enhanced'), (*source.read(i), source.enhanced(i))):
            np.testing.assert_array_equal(log.sounds[f'{name}_pesq/{stage}'], waveform)
    np.testing.assert_allclose(log.values[f'validation/{metric}/mean'], np.mean(list(scores.values())), rtol=1e-4)
    text, = log.texts
    assert len(log.sounds) == 6 and '4 validation utterances' in text and '(u1)' in text and '(u2)' in text


def test_without_any_pesq_a_line_says_so():
    class Silent(Utterances):
        levels = (None, None)

    log, source = Recorded(), Silent()
    validation.log_best_and_worst(log, 3, Trainable(), source.listen, {}, source, 2)
    assert not log.sounds and not log.values
    assert log.texts == ['step 3: pesq_wb of 2 validation utterances: undefined (the degraded signal is all zero)']


def test_a_training_logs_pesq_only_if_told_to(corpus, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(setup.Logger, 'audio', lambda self, step, name, *sound: heard.append((step, name)))
    config = make_config(corpus, steps=3)
    with config.unlocked():
        config.log.pesq_examples = 2
    assert train(config, tmp_path)['finished']
    assert heard == [(3, f'{end}_pesq/{stage}')
                     for end in ('best', 'worst') for stage in ('clean', 'noisy', 'enhanced')]
    assert '"validation/pesq_wb/best"' in (tmp_path / 'log.jsonl').read_text()


@pytest.mark.parametrize(('system', 'rate', 'count', 'words'), [
    ('prior', 16_000, 2, 'expected 0, as Prior enhances nothing by itself'),
    ('toy', 48_000, 2, 'expected 0, as PESQ is not defined at 48000 Hz'), ('toy', 16_000, -1, '0 .none. or more')])
def test_pesq_that_cannot_be_logged_is_refused(system, rate, count, words):
    with pytest.raises(UserError, match=f'config.log.pesq_examples.*{words}.*got {count}'):
        LogConfig(pesq_examples=count).check((Prior if system == 'prior' else Trainable)(
            front_end=FrontEnd(sample_rate=rate)))


class Prior(Refiner, Trainable):
    """Cannot enhance by itself; the generated signal encodes the number of steps."""

    def generate(self, variables, key, num_samples, *, steps=None):
        return jnp.full((len(key), num_samples), steps / 100)


def test_a_prior_learns_from_clean_speech_and_logs_generated_audio(corpus, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setitem(systems.SYSTEMS, 'toy', Prior)
    monkeypatch.setattr(setup.Logger, 'audio', lambda self, *sound: heard.append(sound))
    config = make_config(corpus, steps=3)
    with config.unlocked():
        config.data.train, config.log.audio_examples = {'speech': str(corpus / 'clean')}, 1
    assert train(config, tmp_path)['finished']
    (step, name, waveform, sample_rate), = heard
    assert (step, name, sample_rate) == (3, '0/generated', 16_000)
    np.testing.assert_allclose(waveform, np.full(64_000, validation.LISTENING_STEPS / 100), rtol=1e-6)


def test_a_system_chooses_its_validation_loss(corpus, tmp_path, monkeypatch):
    """The sum of the losses, unless the system names one of its metrics."""
    losses, found = Trainable.losses.fget, []

    def with_two(self):
        def other(*args, **kwargs):
            out = losses(self)['toy'](*args, **kwargs)
            return out._replace(loss=3 * out.loss, metrics={'half': 0.5 * out.loss})

        return {'toy': losses(self)['toy'], 'other': other}

    def init(self, key, draw=Trainable.init):
        return {collection: {**groups, 'other': groups['toy']} for collection, groups in draw(self, key).items()}

    monkeypatch.setattr(Trainable, 'losses', property(with_two))
    monkeypatch.setattr(Trainable, 'init', init)
    for criterion in (None, 'other/half'):
        monkeypatch.setattr(Trainable, 'criterion', criterion)
        found.append(train(make_config(corpus, steps=1), tmp_path / str(criterion))['validation_loss'])
    assert found[1] == pytest.approx(found[0] / 8)  # 0.5 of 1 + 3
