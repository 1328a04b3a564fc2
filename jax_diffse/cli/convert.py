"""Turns the authors' PyTorch checkpoints into a run that evaluate.py and enhance.py accept.

    python -m jax_diffse.convert KIND=CHECKPOINT.pth... --workdir RUN
    python -m jax_diffse.convert nisqa nisqa.tar...

Several networks of one system make one run: dr-diffuse-base=base.pth dr-diffuse-diffuse=diffuse.pth
dr-diffuse-refiner=refiner.pth. What weights cannot tell is as in the published networks, unless --model says otherwise.

The second form is for the metric NISQA: it takes the released files (nisqa.tar, nisqa_mos_only.tar, nisqa_tts.tar) and
writes to the cache folder, where evaluation finds them ($JAX_DIFFSE_CACHE names another folder).
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from jax_diffse import convert, errors, files, runs, systems
from jax_diffse.config import override, setting
from jax_diffse.convert import nisqa
from jax_diffse.metrics import nisqa as scorer


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, converts and writes the run, or the weights of a metric.

    Raises:
      UserError: a mistake in the command line, a file that cannot be read or converted, or a workdir that holds a run
        already.
    """
    parser = errors.Parser(prog='python -m jax_diffse.convert', description=__doc__,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoints', nargs='+', metavar='KIND=FILE',
                        help=f"the authors' files; KIND is one of {', '.join(convert.KINDS)}; or nisqa and its files")
    parser.add_argument('--workdir', type=files.given, help='folder of the run to write')
    parser.add_argument('--model', type=setting, action='append', default=[], metavar='KEY=VALUE',
                        help='a field of config.model that weights cannot tell, say network.heads=8; may be repeated')
    args = parser.parse_args(argv)
    if args.checkpoints[0] == 'nisqa':
        if args.workdir or args.model or not args.checkpoints[1:]:
            parser.error('nisqa takes files, and neither --workdir nor --model')
        _to_cache([files.given(path) for path in args.checkpoints[1:]])
    elif args.workdir:
        _to_run(args.checkpoints, args.workdir, dict(args.model))
    else:
        parser.error('the following arguments are required: --workdir')


def _to_cache(paths: Sequence[str]) -> None:
    """Converts released files of NISQA."""
    for path, model in [(path, nisqa.identify(path)) for path in paths]:
        written = scorer.save(model, nisqa.variables(model, convert.read_state_dict(path)))
        print(f'{path} ({model}) -> {written}')
    print(f'These weights are under {scorer.LICENCE}.')


def _to_run(arguments: Sequence[str], workdir: str, model: dict[str, Any]) -> None:
    """Converts the networks of a system."""
    paths = _paths(arguments)
    weights = {kind: convert.read_state_dict(path, convert.KINDS[kind].entry) for kind, path in paths.items()}
    system, fields = convert.describe(weights)
    config = ConfigDict({'system': system, 'model': dataclasses.asdict(systems.build(system, fields))})
    override(config.model, model)
    systems.build(system, config.model)  # refuses what does not fit
    variables: dict = {'params': {}, 'batch_stats': {}}
    for kind, path in paths.items():
        try:
            converted = convert.from_torch(kind, weights[kind])
        except errors.UserError as error:
            raise errors.UserError(f'{path}: {error}') from error
        for collection, groups in converted.items():
            variables[collection].update(groups)
    runs.save(workdir, config, variables)
    print(f'{", ".join(paths.values())} -> {workdir}')


def _paths(arguments: Sequence[str]) -> dict[str, str]:
    """Kind -> file."""
    paths: dict[str, str] = {}
    for argument in arguments:
        kind, separator, path = argument.partition('=')
        if not separator or kind not in convert.KINDS:
            raise errors.UserError(f'{argument}: expected KIND=FILE, KIND one of {", ".join(convert.KINDS)}')
        if kind in paths:
            raise errors.UserError(f'{argument}: {kind} given twice')
        paths[kind] = files.given(path)
    return paths


if __name__ == '__main__':
    errors.exit_with(main)
