"""Prints the losses of priors on clean speech that they were not trained on, to compare them.

    python -m docs.prior_losses --speech DIR RUN...

The loss is the mean squared error of the estimated noise, as in validation: at eight steps t, one per recording, with
noise that depends only on the place of the recording. Only runs with the same scale of spectrograms and the same
schedule can be compared.
"""

import argparse

from jax_diffse import errors, launch


def loss(run, speech: str, seconds: float, batch_size: int = 4) -> tuple[float, int]:
    """The mean over the recordings in a folder, cut to their middle `seconds`, and the number of recordings."""
    from jax_diffse.data import DataConfig, open_source, pipeline
    from jax_diffse.data.config import Folders
    from jax_diffse.training import parallel, validation
    from jax_diffse.training import state as state_lib

    source = open_source(DataConfig(test=Folders(speech=speech), sample_rate=run.system.sample_rate), 'test')
    mapping = parallel.Parallel()
    batches = pipeline.eval_batches(source, run.system.front_end, batch_size=batch_size,
                                    max_samples=round(seconds * run.system.sample_rate))
    means = validation.evaluate(mapping.map(state_lib.make_eval_step(run.system, 0)), mapping.replicate(run.variables),
                          batches, mapping)
    return means['prior/loss'], len(source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', metavar='RUN')
    parser.add_argument('--speech', required=True, metavar='DIR', help='clean speech')
    parser.add_argument('--seconds', type=float, default=4.08, help='length of each recording (default: %(default)s)')
    args = parser.parse_args()

    from jax_diffse import runs
    from jax_diffse.systems.base import Refiner

    runs = [runs.load(workdir) for workdir in args.runs]
    for run in runs:
        if not isinstance(run.system, Refiner):
            raise errors.UserError(f'{run.workdir}: not a run of a prior on clean speech')
    print('| run | loss | recordings |\n|---|--:|--:|')
    for run in runs:
        value, count = loss(run, args.speech, args.seconds)
        print(f'| {run.workdir} | {value:.4f} | {count} |', flush=True)


if __name__ == '__main__':
    launch.tune()
    errors.exit_with(main)
