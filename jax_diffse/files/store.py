"""Operations on addresses of object storage that `etils.epath.Path` lacks."""

import base64
import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax_diffse.files.paths import is_address, path
from jax_diffse.files.temporary import temporary_folder


class Entry(NamedTuple):
    """An object in a listing."""

    size: int  # bytes
    changed: float  # seconds since 1970, by the store's clock
    version: str  # differs after every write: the generation (gs://) or the ETag (s3://)
    md5: str  # hexadecimal; '' if the store does not know it


def file_system(address: str | os.PathLike) -> Any:
    """The client for an address: a file system of fsspec."""
    import fsspec

    return fsspec.filesystem(os.fspath(path(address)).partition('://')[0])


def listing(folder: str | os.PathLike) -> dict[str, Entry]:
    """Lists all objects below an address, at any depth, with one request per thousand.

    Returns:
      Address -> what the listing says of it, sorted by address; {} if there is nothing.

    Raises:
      OSError: the bucket does not exist or cannot be read.
    """
    below = os.fspath(path(folder)) + '/'
    found = {name: _entry(info) for name, info in file_system(folder).objects(below)
             if name.startswith(below) and not name.endswith('/')}
    return {name: found[name] for name in sorted(found)}


def entry(address: str | os.PathLike) -> Entry:
    """The size, version and MD5 of an object.

    Raises:
      FileNotFoundError, IsADirectoryError: there is no such object, or it is a folder.
      OSError: it cannot be read.
    """
    info = file_system(address).info(os.fspath(address))
    if info['type'] == 'directory':
        raise IsADirectoryError(errno.EISDIR, 'Is a directory', os.fspath(address))
    return _entry(info)


def is_file(text: str | os.PathLike) -> bool:
    """Whether this is a file, on this machine or in object storage."""
    if not is_address(text):
        return os.path.isfile(path(text))
    try:
        return bool(entry(text))
    except (FileNotFoundError, IsADirectoryError):
        return False


def read_bytes(address: str | os.PathLike, start: int | None = None, end: int | None = None) -> bytes:
    """Reads an object, or its bytes from `start` to `end`; FileNotFoundError if it does not exist."""
    data: bytes = file_system(address).cat_file(os.fspath(address), start=start, end=end)
    return data


def upload(source: str | os.PathLike, address: str | os.PathLike) -> None:
    """Writes a file of this machine as one object, which appears whole."""
    file_system(address).put_file(os.fspath(source), os.fspath(address))


@contextlib.contextmanager
def local_copy(file: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a file's path on this machine, for libraries that need one: for an address, of a temporary copy."""
    file = path(file)
    if not is_address(file):
        yield file
        return
    with temporary_folder() as folder:
        copy = folder / file.name
        file_system(file).get_file(os.fspath(file), os.fspath(copy))
        yield copy


def make_folder(folder: pathlib.Path) -> None:
    """Creates a folder and those above it; in object storage, where folders are but names, checks that it can be one.

    Raises:
      OSError: it is a file, or cannot be created.
    """
    if is_address(folder) and is_file(folder):
        raise NotADirectoryError(errno.ENOTDIR, 'Not a directory', os.fspath(folder))
    folder.mkdir(parents=True, exist_ok=True)


def move_folder(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a folder; in object storage, object by object within the store."""
    if not is_address(source):
        os.rename(source, target)
        return
    client, length = file_system(source), len(os.fspath(source))
    for name in listing(source):
        client.cp_file(name, os.fspath(target) + name[length:])  # `copy` takes *, ? and [ for patterns
    remove_folder(source)


def remove_folder(folder: pathlib.Path) -> None:
    """Removes a folder with all that it holds; in object storage it may hold nothing."""
    if not is_address(folder):
        shutil.rmtree(folder)
        return
    client = file_system(folder)
    for name in listing(folder):
        client.rm_file(name)


def _entry(info: dict[str, Any]) -> Entry:
    changed = info.get('mtime') or info.get('LastModified')
    md5 = base64.b64decode(info.get('md5Hash', '')).hex()
    return Entry(int(info['size']), changed.timestamp() if changed else 0.0, version_of(info), md5)


def version_of(info: dict[str, Any]) -> str:
    """The version in what a client says of an object."""
    return str(info.get('generation') or info.get('ETag') or '')
