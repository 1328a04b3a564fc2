"""`jax-diffse train` without installation: see `python train.py --help`."""

from jax_diffse.cli import main

main('train')
