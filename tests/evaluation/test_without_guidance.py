"""One command makes the table of DR-DiffuSE without guidance: both denoisers, both conditions, two numbers of steps."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
from ml_collections import ConfigDict

from jax_diffse import cli, runs
from jax_diffse.systems.base import shapes
from jax_diffse.systems.dr_diffuse import DrDiffuse
from tests.reference import random_variables

RUNS = {
    'c_gen': {'stage': 'c_gen'},
    'diffuse': {'stage': 'diffusion'},
    'diffusec': {'stage': 'diffusion', 'denoiser': 'diffusec'},
    'diffusec_noisy': {'stage': 'diffusion', 'denoiser': 'diffusec', 'condition': 'noisy'},
}


@pytest.mark.slow  # compiles a sampler per row
def test_one_report_has_every_row_without_guidance(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, fields in RUNS.items():
        system = DrDiffuse(channels=4, temporal_groups=1, **fields)
        config = ConfigDict({'system': 'dr_diffuse', 'model': dataclasses.asdict(system), 'data': {}})
        runs.save(name, config, random_variables(shapes(system)))
    for folder in ('clean', 'noisy'):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / 'a.wav', 0.1 * np.random.default_rng(0).standard_normal(6000), 16_000)
    workdirs = [word for name in RUNS for word in ('--workdir', name)]
    cli.run(['evaluate', *workdirs, '--steps', '6,12', '--model', 'guidance=none', '--output', 'report',
             '--clean', 'clean', '--noisy', 'noisy', '--metrics', 'si_sdr', '--workers', '0'])
    found = json.loads((tmp_path / 'report' / 'sweep.json').read_text())
    assert list(found['inputs']) == ['noisy']
    rows = [(point['run'], point['sampling_steps'], list(point['stages'])) for point in found['points']]
    stages = {'diffuse': ['condition', 'diffusion'], 'diffusec': ['condition', 'diffusion'],
              'diffusec_noisy': ['diffusion']}
    assert rows == [('c_gen', None, ['condition']),
                    *((name, steps, own) for name, own in stages.items() for steps in (6, 12))]
    assert {config['model']['guidance'] for config in found['configs'].values()} == {'none'}
    values = [point['stages']['diffusion']['si_sdr']['mean'] for point in found['points'][1:]]
    assert len(set(values)) == len(values)
