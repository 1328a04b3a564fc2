"""`jax-diffse evaluate` without installation: see `python evaluate.py --help`."""

from jax_diffse.cli import main

main('evaluate')
