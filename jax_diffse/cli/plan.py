"""Estimates what a training costs on a TPU slice or on GPUs, without having them.

    jax-diffse plan --config dccrn:si_snr --topology v5e:16x16 --batch-per-device 8
    jax-diffse plan --config diffiner --gpus 8 --gpu h100

The command compiles the training step for these devices, as train would map it, which takes minutes. It runs nothing.
Memory is what the compiler assigned. The time is the compiler's estimate on TPUs, and on GPUs a bound from FLOP, bytes
and launches; neither is a measurement. A config that is a chain of stages has a plan for each.

Values of the config can be overridden: --config.model.dtype=bfloat16.
"""

import argparse
import contextlib
import json
import os

from jax_diffse import files
from jax_diffse.errors import UserError

USAGE = '--config CONFIG (--topology KIND:SHAPE | --gpus N --gpu KIND) [options] [--config.KEY=VALUE...]'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument('--config', required=True, metavar='CONFIG', help='as for train')
    parser.add_argument('--topology', metavar='KIND:SHAPE', help='a TPU slice, as v5e:16x16; kinds: v4, v5e, v5p, v6e')
    parser.add_argument('--gpus', type=int, metavar='N', help='number of GPUs, with --gpu')
    parser.add_argument('--gpu', metavar='KIND', help='a100, h100 or h200')
    parser.add_argument('--batch-per-device', type=int, metavar='B',
                        help='examples on each device (default: config.train.batch_size over the devices; 1 with '
                             '--enhance)')
    parser.add_argument('--enhance', action='store_true', help='plan the enhancement of recordings instead')
    parser.add_argument('--seconds', type=float, default=4.0, metavar='S',
                        help='length of these recordings (default: 4)')
    parser.add_argument('--steps', type=int, metavar='N', help="their sampling steps (default: the config's)")
    parser.add_argument('--largest-batch', action='store_true',
                        help='find how many examples fit on a device, by compiling again and again')
    parser.add_argument('--json', type=files.given, metavar='FILE', help='also write the plans to this file')


def run(args: argparse.Namespace) -> None:
    """Prints the plans."""
    os.environ['JAX_PLATFORMS'] = 'cpu'  # compiling needs no device, and none is to be taken
    from jax_diffse import config as configs
    from jax_diffse.inference.export import opened
    from jax_diffse.planning import table

    _check(args)
    config, target = configs.load(args.config, args.overrides), _target(args)
    stages = {name: configs.stage_config(config, name) for name in config.get('chain', ())} or {'': config}
    plans = []
    with opened(args.json) if args.json else contextlib.nullcontext() as file:  # before minutes of compiling
        for name, stage in stages.items():
            if name:
                print(f'stage {name}:', flush=True)
            found = _planned(args, stage, target)
            plans.append(table.as_json(found) | {'config': args.config, 'overrides': args.overrides, 'stage': name})
        if file:
            file.write(json.dumps(plans, indent=1).encode() + b'\n')


def _check(args: argparse.Namespace) -> None:
    if (args.topology is None) == (args.gpus is None) or (args.gpus is None) != (args.gpu is None):
        raise UserError('expected either --topology, or --gpus and --gpu')
    for flag, value in (('--batch-per-device', args.batch_per_device), ('--seconds', args.seconds)):
        if value is not None and not 0 < value < 1e6:
            raise UserError(f'{flag}={value:g}: expected a positive number')
    if args.steps is not None and not args.enhance:
        raise UserError('--steps needs --enhance')


def _target(args: argparse.Namespace):
    from jax_diffse.planning import targets

    return targets.tpu(args.topology) if args.topology else targets.gpus(args.gpu, args.gpus)


def _planned(args: argparse.Namespace, config, target):
    """Plans one stage, prints the plan, and what would fit if it does not."""
    from jax_diffse.planning import plan, remedies, table

    devices = len(target.devices)

    def planned(per_device: int | None):
        if args.enhance:
            return plan.plan_enhancement(config, target, per_device or 1, args.seconds, args.steps)
        given = {} if per_device is None else {'train.batch_size': per_device * devices}
        return plan.plan_step(remedies.changed(config, given), target)

    if args.largest_batch:
        count, found = plan.largest_batch(planned, args.batch_per_device or 1)
        if found is None:
            raise UserError(f'{target.name}: not even one example fits on a device')
        print(f'at most {count} examples fit on a device', flush=True)
    else:
        try:
            found = planned(args.batch_per_device)
        except plan.DoesNotFitError as error:
            print(f'{config.system}: {error}', flush=True)
            found = None
    if found:
        print(table.text(found, target), flush=True)
    if (found is None or not found.fits) and not args.enhance:
        fitting = _tried(args, config, target)
        found = found or fitting
    if found is None:
        raise UserError(f'{target.name}: nothing that was tried fits; use a smaller --batch-per-device')
    return found


def _tried(args: argparse.Namespace, config, target):
    from jax_diffse.planning import remedies, table

    if args.batch_per_device:
        config = remedies.changed(config, {'train.batch_size': args.batch_per_device * len(target.devices)})
    best = None
    for words, found in remedies.tried(config, target):
        print(f'  with {words}: {table.headline(found) if found else "does not fit either"}', flush=True)
        best = best or found
    return best
