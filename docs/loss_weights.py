"""Measures the relative size of the two terms of DCCRN's loss combinations on mixtures.

    python -m docs.loss_weights --speech DIR --noise DIR RUN...

RUN was trained with a combination of two terms. Its row says how many times as large the first term is as the second,
both weighted, by the mean of their magnitudes over the mixtures. The estimate is the mixture itself, the output of the
untrained network, and the output of the run. Further columns have the same with the released weights, and the ratio of
the norms of the gradients.
"""

import argparse

from configs.dccrn import RELEASED
from jax_diffse import errors, launch

STATES = ('mixture', 'untrained', 'trained')


def combination(run) -> tuple[str, str]:
    """Returns the two terms of the run's loss, the more important one first."""
    terms = {name for name, weight in run.config.model.get('loss', {}).items() if weight}
    found = [name for name, weights in RELEASED.items() if set(weights) == terms]
    if not found:
        raise errors.UserError(f'{run.workdir}: expected a run of DCCRN with one of the losses {", ".join(RELEASED)}')
    return tuple(RELEASED[found[0]])


def batches(run, speech: str, noise: str) -> list:
    """Returns the listed mixtures of the folders at the run's test SNRs, cut to at most 3 s in the middle."""
    from jax_diffse.data import DataConfig, open_source, pipeline
    from jax_diffse.data.config import Folders

    system = run.system
    config = DataConfig(test=Folders(speech=speech, noise=noise), test_snr_db=tuple(run.config.data.test_snr_db),
                        sample_rate=system.sample_rate, clip_seconds=3.0)
    return list(pipeline.eval_batches(open_source(config, 'test'), system.front_end, batch_size=4,
                                      max_samples=3 * system.sample_rate))


def make_step(system):
    """Builds `step(variables, batch)` -> each term's magnitude, summed over the examples, and its gradient's norm.

    The step uses the statistics of the batch, as in training.
    """
    import jax
    import jax.numpy as jnp
    import optax

    def step(variables, batch):
        def means(params):
            out = system.losses['dccrn']({**variables, 'params': params}, batch, None)
            sizes = {name: jnp.sum(out.weight * jnp.abs(term)) for name, term in out.metrics.items()}
            return {name: jnp.sum(out.weight * term) / jnp.sum(out.weight) for name, term in out.metrics.items()}, sizes

        values, gradient, sizes = jax.vjp(means, variables['params'], has_aux=True)
        norms = {name: optax.tree.norm(gradient({other: jnp.float32(other == name) for other in values})[0])
                 for name in values}
        return sizes, norms

    return step


def ratios(run, mixtures: list) -> dict[str, tuple[float, float]]:
    """State -> how many times as large the first term is as the second, unweighted: by magnitude, by gradient."""
    import jax
    import numpy as np

    from jax_diffse.training import parallel

    system, mapping = run.system, parallel.Parallel(devices=jax.devices()[:1])
    variables = {'untrained': system.init(jax.random.key(run.config.train.seed)), 'trained': run.variables}
    step, terms = mapping.map(make_step(system)), jax.jit(
        lambda batch: system.terms(batch['noisy'], batch['noisy_spec'], batch))
    (first, second), found = combination(run), {}
    for state in STATES:
        if state == 'mixture':
            real = [batch['num_samples'] > 0 for batch in mixtures]
            measured = [({name: np.sum(np.abs(term) * mask) for name, term in terms(batch).items()}, None)
                        for batch, mask in zip(mixtures, real, strict=True)]
        else:
            placed = mapping.replicate(variables[state])
            measured = [jax.device_get(step(placed, mapping.shard(batch))) for batch in mixtures]
        sizes, norms = zip(*measured, strict=True)
        found[state] = (sum(size[first] for size in sizes) / sum(size[second] for size in sizes),
                        np.median([norm[first] / norm[second] for norm in norms]) if norms[0] else float('nan'))
    return found


def row(run, mixtures: list) -> str:
    loss, (first, second), found = run.config.model.loss, combination(run), ratios(run, mixtures)
    scale = loss[first] / loss[second]
    released = next(weights[first] / weights[second] for weights in RELEASED.values() if {*weights} == {first, second})
    cells = [f'{first} : {second}', f'{loss[first]:g} : {loss[second]:g}',
             *(f'{weight * found[state][0]:.2g}' for weight in (scale, released) for state in STATES),
             *(f'{scale * found[state][1]:.2g}' for state in STATES[1:]), str(run.step)]
    return f'| {" | ".join(cells)} |'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='RUN')
    parser.add_argument('--speech', required=True, metavar='DIR')
    parser.add_argument('--noise', required=True, metavar='DIR')
    args = parser.parse_args()

    from jax_diffse import runs
    from jax_diffse.training import parallel

    parallel.wait_for_each_step()
    runs = [runs.load(workdir, step='latest') for workdir in args.runs]
    for run in runs:
        combination(run)
    print('| loss | weights | mixture | untrained | trained | released weights: mixture | untrained | trained | '
          'gradients: untrained | trained | steps |\n|---|---|' + '--:|' * 9)
    mixtures = batches(runs[0], args.speech, args.noise)
    for run in runs:
        print(row(run, mixtures), flush=True)


if __name__ == '__main__':
    launch.tune()
    errors.exit_with(main)
