"""Files and folders that users name: paths on this machine and addresses of object storage (`gs://`, `s3://`)."""

from jax_diffse.files.appended import AppendedFile, read_appended
from jax_diffse.files.locks import locked, locked_in_turn
from jax_diffse.files.objects import StoredObject
from jax_diffse.files.paths import absolute, given, is_address, is_folder, path, reason, resolved
from jax_diffse.files.store import (
    Entry,
    entry,
    is_file,
    listing,
    local_copy,
    make_folder,
    move_folder,
    read_bytes,
    remove_folder,
    upload,
)
from jax_diffse.files.temporary import temporary_folder
from jax_diffse.files.writing import atomic_write, unwritable, write_text

__all__ = ['AppendedFile', 'Entry', 'StoredObject', 'absolute', 'atomic_write', 'entry', 'given', 'is_address',
           'is_file', 'is_folder', 'listing', 'local_copy', 'locked', 'locked_in_turn', 'make_folder', 'move_folder',
           'path', 'read_appended', 'read_bytes', 'reason', 'remove_folder', 'resolved', 'temporary_folder',
           'unwritable', 'upload', 'write_text']
