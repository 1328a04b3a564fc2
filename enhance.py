"""`jax-diffse enhance` without installation: see `python enhance.py --help`."""

from jax_diffse.cli import main

main('enhance')
