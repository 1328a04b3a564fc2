"""The commands: `jax-diffse COMMAND`, one module each."""
