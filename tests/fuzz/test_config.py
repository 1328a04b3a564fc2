"""Configs: any value of any key gives a config with that value, or an error of one line."""

import dataclasses
import math
import typing

from hypothesis import example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from jax_diffse import config, systems
from jax_diffse.data.config import DataConfig
from jax_diffse.errors import UserError
from jax_diffse.systems import SYSTEMS
from jax_diffse.training.settings import TrainConfig
from jax_diffse.training.state import OptimizerConfig

NAMES = ['dccrn:folders,small,short', 'dr_diffuse:folders,short', 'diffiner:folders,small,short', 'segan']


def flat(values, prefix=''):
    """Dotted key -> value."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
    return found


DEFAULTS = {name: flat(config.load(name).to_dict()) for name in NAMES}

numbers = st.integers(-10**12, 10**12) | st.floats() | st.booleans()
words = st.text(max_size=12)
# Errors repeat these as they are.
names = st.text(st.characters(exclude_categories=['Cc', 'Cs', 'Zl', 'Zp']), max_size=12)
literals = (numbers | st.lists(numbers, max_size=4).map(tuple) | st.lists(words, max_size=3).map(tuple)
            | st.none() | words.map(repr)).map(str)
texts = words | literals | st.sampled_from(['', '()', '(1,', '[1]', '{}', '1e999', 'nan', '0x10', '1_0', 'True', "'"])


def check_line(error: UserError):
    assert len(str(error).splitlines()) == 1 and 'Traceback' not in str(error)


def same(a, b):
    return type(a) is type(b) and (a == b or isinstance(a, float) and math.isnan(a) and math.isnan(b))


@st.composite
def overrides(draw):
    name = draw(st.sampled_from(NAMES))
    keys = draw(st.lists(st.sampled_from(sorted(DEFAULTS[name])), min_size=1, max_size=4, unique=True))
    return name, {key: draw(texts) for key in keys}


@settings(max_examples=150)
@given(overrides())
def test_text_for_known_keys(drawn):
    """An accepted value has the type of the default, is stored at its key and changes nothing else."""
    name, values = drawn
    try:
        found = config.load(name, [f'--config.{key}={text}' for key, text in values.items()])
    except UserError as error:
        return check_line(error)
    changed = flat(found.to_dict())
    for key, default in DEFAULTS[name].items():
        if key not in values:
            assert same(changed[key], default), key
        elif isinstance(default, str):
            assert changed[key] == values[key]
        else:
            assert type(changed[key]) is type(default), key
            if isinstance(default, float):
                assert same(changed[key], float(values[key]))
            elif isinstance(default, int) and not isinstance(default, bool):
                assert changed[key] == int(values[key], 0)


@settings(max_examples=100)
@given(st.sampled_from(NAMES), names, texts)
@example(NAMES[0], 'train', '3')
@example(NAMES[0], 'train.steps.more', '3')
@example(NAMES[0], '', '3')
@example(NAMES[0], 'get', '3')
def test_text_for_any_key(name, key, text):
    try:
        found = config.load(name, [f'--config.{key}={text}'])
    except UserError as error:
        return check_line(error)
    assert key in DEFAULTS[name] and set(flat(found.to_dict())) == set(DEFAULTS[name])


@settings(max_examples=60)
@given(st.sampled_from(NAMES), names)
@example(NAMES[0], 'configs/')
@example(NAMES[0], '\0/')
def test_any_name_variant_and_argument(name, text):
    for arguments in ((text, []), (f'{name}:{text}', []), (name, [text])):
        try:
            config.load(*arguments)
        except UserError as error:
            check_line(error)


# ----------------------------------------------------------------------------------------------------- dataclasses

CLASSES = [*SYSTEMS.values(), DataConfig, TrainConfig, OptimizerConfig]


def values_of(cls):
    """Fields of a dataclass with values of their type, in or out of range, or of another type."""
    chosen = {}
    for field in dataclasses.fields(cls):
        wanted = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(wanted):
            chosen[field.name] = values_of(wanted) | anything
            continue
        default = st.nothing() if field.default is dataclasses.MISSING else st.just(field.default)
        of_type = {int: st.integers(-2, 40), float: st.floats(-2, 3) | st.floats()}.get(wanted, words | st.booleans())
        if typing.get_origin(wanted) is tuple:
            of_type = st.lists(st.integers(-1, 8) | st.floats(), max_size=4).map(tuple)
        chosen[field.name] = default | of_type | of_type | anything
    return st.fixed_dictionaries({}, optional=chosen)


anything = (st.none() | st.integers(-3, 70) | st.floats() | words | st.booleans()
            | st.lists(st.integers(0, 9), max_size=3))


@st.composite
def instances(draw):
    cls = draw(st.sampled_from(CLASSES))
    return cls, draw(values_of(cls))


@settings(max_examples=400)
@given(instances())
def test_any_values_build_the_dataclass_or_are_refused(drawn):
    """The dataclass has the given values, finite and of the field's type."""
    cls, values = drawn
    try:
        made = config.from_config_dict(cls, values, 'config.model')
    except UserError as error:
        assert str(error).startswith('config.')
        return check_line(error)
    compare(made, values)
    config.from_config_dict(cls, ConfigDict(values), 'config.model')


def compare(made, values):
    types = typing.get_type_hints(type(made))
    for name, value in values.items():
        found = getattr(made, name)
        if dataclasses.is_dataclass(types[name]):
            compare(found, value)
        elif typing.get_origin(types[name]) is tuple:
            assert type(found) is tuple and list(found) == list(value)
            wanted = typing.get_args(types[name])[0]
            assert all(type(part) is wanted and math.isfinite(part) for part in found), name
        else:
            assert type(found) is (typing.get_origin(types[name]) or types[name]) and found == value, name


@settings(max_examples=100)
@given(st.dictionaries(names | st.sampled_from(['loss.mse', 'channels', 'lstm', 'hop', 'loss']), texts, max_size=3))
def test_any_key_and_value_of_a_model(changes):
    """As in `evaluate.py --model KEY=VALUE`."""
    model = ConfigDict(DEFAULTS_OF_DCCRN).copy_and_resolve_references()
    try:
        config.override(model, changes)
        systems.build('dccrn', model)
    except UserError as error:
        check_line(error)


DEFAULTS_OF_DCCRN = dataclasses.asdict(SYSTEMS['dccrn']())
