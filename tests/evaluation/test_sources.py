"""The fingerprint of code changes if and only if a change can affect results."""

import pytest

from jax_diffse.evaluation import sources

FILES = {
    'systems/one.py': 'from jax_diffse.losses import sdr\nfrom jax_diffse.networks.net import Net\n',
    'systems/two.py': 'from jax_diffse.networks import other\n',
    'networks/net.py': ('"""A network."""\n\nfrom jax_diffse import spectral\n\n\n'
                        'def f(x):\n    """Doubles."""\n    return 2 * x\n'),
    'networks/other.py': 'WIDTH = 3\n', 'losses/sdr.py': 'SCALE = 10\n', 'spectral.py': 'HOP = 160\n',
    'inference/enhancer.py': 'OVERLAP = 2\n', 'metrics/scoring.py': 'CLEAN = 0\n',
    'evaluation/report.py': 'COLOUR = 0\n'}


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """(file, old, new) -> whether the fingerprints of systems.one, systems.two and scoring change."""
    monkeypatch.setattr(sources, 'PACKAGE', tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def found():
        sources.fingerprint.cache_clear()
        return [sources.fingerprint(name) for name in ('jax_diffse.systems.one', 'jax_diffse.systems.two', '')]

    def change(name, old, new):
        before, text = found(), (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))
        after = found()
        (tmp_path / name).write_text(text)
        return [one != other for one, other in zip(before, after)]

    yield change
    sources.fingerprint.cache_clear()


@pytest.mark.parametrize(('name', 'old', 'new', 'expected'), [
    ('networks/net.py', '2 * x', '3 * x', [True, False, False]),
    ('networks/net.py', 'Doubles.', 'Twice x.', [False, False, False]),
    ('networks/net.py', '2 * x', '2 * x  # double', [False, False, False]),
    ('networks/other.py', '3', '4', [False, True, False]),
    ('spectral.py', '160', '80', [True, False, False]),  # by way of the network
    ('losses/sdr.py', '10', '20', [False, False, False]),  # no part of an enhancement
    ('evaluation/report.py', '0', '1', [False, False, False]),
    ('inference/enhancer.py', '2', '3', [True, True, False]),
    ('metrics/scoring.py', '0', '1', [True, True, True])])
def test_only_code_that_can_change_a_result_counts(changed, name, old, new, expected):
    assert changed(name, old, new) == expected


def test_all_rooms_of_a_real_system_are_followed():
    """Checks that every room in the list exists, as a renamed one would silently be left out."""
    assert all((sources.PACKAGE / room).is_dir() or (sources.PACKAGE / f'{room}.py').is_file()
               for room in sources.ROOMS)
    assert sources.fingerprint('jax_diffse.systems.dccrn') != sources.fingerprint('jax_diffse.systems.segan')
