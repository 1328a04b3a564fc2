"""Turns the authors' checkpoints, of PyTorch or Keras, into a run that evaluate and enhance accept.

    jax-diffse convert KIND=CHECKPOINT.pth... --workdir RUN
    jax-diffse convert nisqa nisqa.tar...

Several networks of one system form one run: dr-diffuse-base=base.pth dr-diffuse-diffuse=diffuse.pth
dr-diffuse-refiner=refiner.pth. Settings that the weights do not determine are those of the published networks, unless
--model overrides them. Checkpoints of SGMSE+, the Schroedinger bridge and FlowSE (sgmse=, bridge=, flowse=) hold
their settings.

The second form installs the weights of the metric NISQA (nisqa.tar, nisqa_mos_only.tar, nisqa_tts.tar) in the cache
folder ($JAX_DIFFSE_CACHE), where evaluate finds them.
"""

import argparse

from jax_diffse import files
from jax_diffse.config import setting
from jax_diffse.errors import UserError

KINDS = ('dr-diffuse-base', 'dr-diffuse-diffuse', 'dr-diffuse-diffusec', 'dr-diffuse-refiner', 'dccrn', 'diffiner',
         'segan', 'segan-discriminator', 'compact-unet', 'noise-unet', 'sgmse', 'bridge',
         'flowse')  # of `jax_diffse.conversion`

USAGE = 'KIND=FILE... --workdir RUN [options] | nisqa FILE...'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('checkpoints', nargs='+', metavar='KIND=FILE',
                        help=f"the authors' files; KIND: {', '.join(KINDS)}; or nisqa and its files")
    parser.add_argument('--workdir', type=files.given, metavar='RUN', help='folder of the run to write')
    parser.add_argument('--model', type=setting, action='append', default=[], metavar='KEY=VALUE',
                        help='set a value of config.model that the weights do not determine, as in network.heads=8; '
                             'repeatable')
    parser.add_argument('--raw', action='store_true',
                        help='of sgmse, bridge and flowse: the trained weights instead of their moving averages')


def run(args: argparse.Namespace) -> None:
    """Converts and writes the run, or the weights of a metric."""
    from jax_diffse.conversion import writing

    if args.checkpoints[0] == 'nisqa':
        if args.workdir or args.model or args.raw or not args.checkpoints[1:]:
            raise UserError('nisqa takes files, and neither --workdir nor --model nor --raw')
        for path, model, written in writing.to_cache([files.given(path) for path in args.checkpoints[1:]]):
            print(f'{path} ({model}) -> {written}')
        print(f'These weights are under {writing.NISQA_LICENCE}.')
        return
    if not args.workdir:
        raise UserError('the following arguments are required: --workdir')
    paths = _paths(args.checkpoints)
    writing.to_run(paths, args.workdir, dict(args.model), raw=args.raw)
    print(f'{", ".join(paths.values())} -> {args.workdir}')


def _paths(checkpoints: list[str]) -> dict[str, str]:
    """Kind -> file."""
    paths: dict[str, str] = {}
    for argument in checkpoints:
        kind, separator, path = argument.partition('=')
        if not separator or kind not in KINDS:
            raise UserError(f'{argument}: expected KIND=FILE, KIND one of {", ".join(KINDS)}')
        if kind in paths:
            raise UserError(f'{argument}: {kind} given twice')
        paths[kind] = files.given(path)
    return paths
