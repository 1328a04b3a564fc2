"""Turns an authors' PyTorch checkpoint into a run that evaluate.py and enhance.py accept.

    python -m jax_diffse.convert dr-diffuse-base CHECKPOINT.pth --workdir RUN
"""

import argparse
import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from jax_diffse import convert, errors, systems
from jax_diffse.training import checkpoints


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, converts and writes the run.

    Raises:
      UserError: the file cannot be read or converted, or the workdir holds a run already.
    """
    parser = argparse.ArgumentParser(prog='python -m jax_diffse.convert', description=__doc__.splitlines()[0])
    parser.add_argument('kind', choices=sorted(convert.KINDS))
    parser.add_argument('checkpoint', help="the authors' file")
    parser.add_argument('--workdir', required=True, help='folder of the run to write')
    args = parser.parse_args(argv)
    weights = convert.read_state_dict(args.checkpoint)
    try:
        variables = convert.from_torch(args.kind, weights)
    except errors.UserError as error:
        raise errors.UserError(f'{args.checkpoint}: {error}') from error
    kind = convert.KINDS[args.kind]
    model = dataclasses.asdict(systems.build(kind.system, kind.model))
    checkpoints.save_run(args.workdir, ConfigDict({'system': kind.system, 'model': model}), variables)
    print(f'{args.checkpoint} -> {args.workdir}')


if __name__ == '__main__':
    errors.exit_with(main)
