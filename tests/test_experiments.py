"""The files in configs/: all combinations of variants build, and a variant only changes the keys of its group."""

import functools
import itertools

import jax
import pytest

from jax_diffse import config, data, systems
from jax_diffse.training.settings import TrainConfig
from jax_diffse.training.state import OptimizerConfig

LISTED = {listed.name: listed for listed in config.available()}
ALLOWED = {  # group -> sections of a config that it may change; of a model, only what counts training examples
    'data': ('data.',),
    'length': ('train.', 'optimizer.', 'stages.', 'model.nll_warmup'),
    'size': ('model.',),
}
PAIRS = [pytest.param(name, *pair, id=f'{name}-{"-".join(pair)}') for name, listed in LISTED.items()
         for pair in itertools.combinations(listed.variants, 2)]


@functools.cache
def flat(name: str, *variants: str) -> dict:
    """Dotted key -> value of a config."""
    def keys(values, prefix):
        found = {}
        for key, value in values.items():
            found |= keys(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
        return found

    return keys(config.load(f'{name}:{",".join(variants)}').to_dict(), '')


def changes(name: str, variant: str, *others: str) -> dict:
    """What a variant changes in the config that `others` make."""
    before, after = flat(name, *others), flat(name, *others, variant)
    return {key: after.get(key) for key in before | after if before.get(key) != after.get(key)}


def check(name: str, *variants: str) -> None:
    """A config that the training loop takes."""
    loaded = config.load(f'{name}:{",".join(variants)}')
    assert loaded == config.load(f'{name}:{",".join(reversed(variants))}')
    stages = [config.stage_config(loaded, stage) for stage in loaded.chain] if 'chain' in loaded else [loaded]
    for stage in stages:
        system = systems.build(stage.system, stage.model)
        data.DataConfig.from_config_dict(stage.data)
        settings = config.from_config_dict(TrainConfig, stage.train, 'config.train')
        config.from_config_dict(OptimizerConfig, stage.optimizer, 'config.optimizer')
        assert system.losses and 0 < settings.steps
        assert settings.steps == 20 or 'quick' not in variants


@pytest.mark.parametrize('name', LISTED)
def test_a_config_builds_alone_and_with_each_variant(name):
    check(name)
    for names in LISTED[name].variants.values():
        for variant in names:
            check(name, variant)


@pytest.mark.parametrize(('name', 'first', 'second'), PAIRS)
def test_variants_of_two_groups_combine(name, first, second):
    for pair in itertools.product(LISTED[name].variants[first], LISTED[name].variants[second]):
        check(name, *pair)


@pytest.mark.parametrize('name', LISTED)
def test_a_group_changes_only_its_own_sections(name):
    for group, allowed in ALLOWED.items():
        for variant in LISTED[name].variants.get(group, ()):
            changed = [key for key in changes(name, variant) if not key.startswith(allowed)]
            if variant == 'quick':  # a size with a training of its own
                changed = [key for key in changed if not key.startswith(('train.', 'stages.')) and key != 'data.name']
            if group == 'length' or variant == 'quick':  # scores would take much of a short training
                changed = [key for key in changed if key != 'log.pesq_examples']
            if variant == 'voicebank':  # epochs are those of the data
                changed = [key for key in changed if key not in ('train.steps', 'train.eval_every', 'train.save_every')]
            assert not changed, variant
            assert not [key for key in changes(name, variant) if key.endswith('.stage')], variant


@pytest.mark.parametrize(('name', 'first', 'second'), [
    pair for pair in PAIRS if 'stage' not in pair.values])  # which takes its changes out of `stages`
def test_variants_are_independent(name, first, second):
    """The group that is applied later wins where both have a say."""
    for other, variant in itertools.product(LISTED[name].variants[first], LISTED[name].variants[second]):
        if second == 'faithfulness' or 'quick' in (other, variant):
            continue
        alone, both, without = flat(name, variant), flat(name, other, variant), flat(name, other)
        own = changes(name, variant)
        for key in both:
            assert both[key] == (alone[key] if key in own else without[key]), (other, variant, key)


@pytest.mark.parametrize('name', LISTED)
def test_quick_is_the_same_training_of_the_same_model_whatever_else_is_chosen(name):
    groups = LISTED[name].variants
    found = flat(name, 'quick')
    assert (found['data.name'], found['train.steps'], found['train.eval_every']) == ('spoken_demo', 20, 10)
    for other in (*groups.get('data', ()), *groups.get('length', ())):
        both = flat(name, 'quick', other)
        for key in changes(name, 'quick'):
            assert both.get(key) == found.get(key) or key == 'data.name', (other, key)
    for other in groups.get('data', ()):
        assert flat(name, other, 'quick')['data.name'] == flat(name, other)['data.name']


@pytest.mark.parametrize('length', ['', 'short', 'brief'])
def test_stages_that_train_c_gen_further_differ_only_in_what_they_train_on(length):
    """So that the stage control is the control of the refiner, too."""
    refiner, augmented, control = (flat('dr_diffuse', stage, length) for stage in ('refiner', 'augmented', 'control'))

    def differences(a, b):
        return {key: (a[key], b[key]) for key in a | b if a[key] != b[key]}

    assert differences(augmented, control) == {'augment.share': (0.5, 0.0)}
    assert differences(refiner, control) == {'model.stage': ('refiner', 'c_gen')}


@pytest.mark.parametrize(('name', 'expected'), [
    ('dccrn:small', 0.23), ('dccrn:half', 0.93), ('dccrn', 3.7),
    ('diffiner:small', 11.1), ('diffgmm', 34.3), ('diffgmm:small', 3.2),
    ('compact_diffiner', 0.04621), ('segan', 2.7 + 1.4), ('segan:small', 0.68 + 0.36),
    ('noise_unet', 1.941093), ('sgmse', 65.590822), ('sgmse:48k', 64.739854), ('sgmse:small', 4.7),
    ('bridge', 65.590822), ('flowse:small', 4.7)])
def test_sizes_have_the_parameters_that_are_documented(name, expected):
    loaded = config.load(name)
    params = jax.eval_shape(systems.build(loaded.system, loaded.model).init, jax.random.key(0))['params']
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6 == pytest.approx(expected, rel=0.03)
