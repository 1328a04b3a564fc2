"""What trainings and enhancements cost on accelerators that are not at hand: compiled for them, read, not run."""
