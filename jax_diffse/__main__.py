"""`python -m jax_diffse COMMAND` is `jax-diffse COMMAND`."""

from jax_diffse.cli import main

main()
