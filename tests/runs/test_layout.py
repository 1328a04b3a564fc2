"""What a checkpoint says of itself, in this format and in earlier ones."""

import pathlib

import pytest

from jax_diffse.errors import UserError
from jax_diffse.runs import layout

PATH = pathlib.Path('checkpoints', '7')


def meta(monkeypatch, **changes):
    """What `layout.meta` makes of a stored record."""
    stored = {'format': layout.FORMAT, 'config': {'system': 'diffgmm', 'model': {'noise_scale': 0.1}}, 'versions': {},
              'sample_rate': 16_000} | changes
    monkeypatch.setattr(layout, 'read_json', lambda path, item: stored)
    return layout.meta(PATH, 'run')


@pytest.mark.parametrize(('system', 'old', 'new'), [
    ('diffgmm', {'jitter': 0.1, 'steps': 6}, {'noise_scale': 0.1, 'steps': 6}),
    ('diffiner', {'deviation': 'component'}, {'sigma_hat': 'component'})])
def test_keys_of_the_first_format_get_their_present_names(monkeypatch, system, old, new):
    assert meta(monkeypatch, format=1, config={'system': system, 'model': old})['config']['model'] == new


def test_keys_of_this_format_are_left_alone(monkeypatch):
    """A later system may use one of the old names for something else."""
    found = meta(monkeypatch, config={'system': 'diffgmm', 'model': {'jitter': 0.1}})
    assert found['config']['model'] == {'jitter': 0.1} and found['history'] == {}


@pytest.mark.parametrize(('changes', 'message'), [
    ({'format': layout.FORMAT + 1}, f'written by a newer jax_diffse .*reads up to {layout.FORMAT}'),
    ({'config': {'system': 'unknown', 'model': {}}}, "the system 'unknown', which this jax_diffse lacks"),
    ({'config': {'system': 'diffgmm'}}, 'step 7 are missing or damaged .*model'),
    ({'format': 1, 'config': {'system': 'diffgmm', 'model': 3}}, 'missing or damaged')])
def test_records_that_cannot_be_used_are_refused(monkeypatch, changes, message):
    with pytest.raises(UserError, match=message):
        meta(monkeypatch, **changes)
