"""Enhancement of files, batches and streams, and the export of a run as one function."""
