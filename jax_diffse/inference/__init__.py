"""What happens to recordings: whole files, batches, streams, exported functions."""
