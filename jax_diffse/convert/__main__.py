"""Turns the authors' PyTorch checkpoints into a run that evaluate.py and enhance.py accept.

    python -m jax_diffse.convert KIND=CHECKPOINT.pth... --workdir RUN

Several networks of one system make one run: dr-diffuse-base=base.pth dr-diffuse-diffuse=diffuse.pth
dr-diffuse-refiner=refiner.pth. What weights cannot tell is as in the published networks, unless --model says otherwise.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from jax_diffse import convert, errors, systems
from jax_diffse.config import override, setting
from jax_diffse.training import checkpoints


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, converts and writes the run.

    Raises:
      UserError: the file cannot be read or converted, or the workdir holds a run already.
    """
    parser = argparse.ArgumentParser(prog='python -m jax_diffse.convert', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoints', nargs='+', metavar='KIND=FILE',
                        help=f"the authors' files; KIND is one of {', '.join(convert.KINDS)}")
    parser.add_argument('--workdir', required=True, help='folder of the run to write')
    parser.add_argument('--model', type=setting, action='append', default=[], metavar='KEY=VALUE',
                        help='a field of config.model that weights cannot tell, say network.heads=8; may be repeated')
    args = parser.parse_args(argv)
    paths = _paths(args.checkpoints)
    weights = {kind: convert.read_state_dict(path) for kind, path in paths.items()}
    system, fields = convert.describe(weights)
    config = ConfigDict({'system': system, 'model': dataclasses.asdict(systems.build(system, fields))})
    override(config.model, dict(args.model))
    systems.build(system, config.model)  # refuses what does not fit
    variables: dict = {'params': {}, 'batch_stats': {}}
    for kind, path in paths.items():
        try:
            converted = convert.from_torch(kind, weights[kind])
        except errors.UserError as error:
            raise errors.UserError(f'{path}: {error}') from error
        for collection, groups in converted.items():
            variables[collection].update(groups)
    checkpoints.save_run(args.workdir, config, variables)
    print(f'{", ".join(paths.values())} -> {args.workdir}')


def _paths(arguments: Sequence[str]) -> dict[str, str]:
    """Kind -> file."""
    paths: dict[str, str] = {}
    for argument in arguments:
        kind, separator, path = argument.partition('=')
        if not separator or kind not in convert.KINDS:
            raise errors.UserError(f'{argument}: expected KIND=FILE, KIND one of {", ".join(convert.KINDS)}')
        if kind in paths:
            raise errors.UserError(f'{argument}: {kind} given twice')
        paths[kind] = path
    return paths


if __name__ == '__main__':
    errors.exit_with(main)
