"""Makes paths of what users give, see `path`."""

import contextlib
import functools
import importlib.util
import os
import pathlib
import re
from typing import cast

from jax_diffse.errors import UserError

PACKAGES = {'gs': 'gcsfs', 's3': 's3fs'}  # scheme -> the package that it needs
EXTRAS = {'gs': 'gcs', 's3': 's3'}  # scheme -> the extra of this project with that package


def path(text: str | os.PathLike) -> pathlib.Path:
    """Makes a path of what a user gave.

    A path on this machine gives a `pathlib.Path`, with `~` expanded. An address gives an `etils.epath.Path`, which has
    the same methods. `pathlib.Path(address)` is wrong in all cases: it names a folder `gs:` on this machine.

    Raises:
      UserError: an address of an unknown kind or without the name of a bucket, or the package that it needs is missing.
    """
    text = os.fspath(text)
    scheme = _scheme(text)
    meant = re.match(r'(gs|s3):(?=/)/?/?', text, re.IGNORECASE)
    if meant and meant[0] != f'{meant[1].lower()}://':
        raise UserError(f'{text}: did you mean {meant[1].lower()}://{text[meant.end():]}?')
    if not scheme:
        return pathlib.Path(os.path.expanduser(text))  # which, unlike pathlib's, leaves names like '~x' alone
    if scheme not in PACKAGES:
        raise UserError(f'{text}: an address of {scheme}://, expected a path on this machine or an address of gs:// or '
                        's3://; copy the data to a disk, or mount the bucket as a folder')
    bucket = text.partition('://')[2].partition('/')[0]
    if not re.fullmatch(r'[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]', bucket):
        raise UserError(f'{text}: {bucket!r} is not the name of a bucket, expected {scheme}://BUCKET/FOLDER; names '
                        'have 3 or more characters of a-z, 0-9, ., _ and -')
    if not _prepared(scheme):
        raise UserError(f'{text}: addresses of {scheme}:// need {PACKAGES[scheme]}: '
                        f"pip install 'jax_diffse[{EXTRAS[scheme]}]'")
    from etils import epath

    return cast(pathlib.Path, epath.Path(text))


def given(text: str | os.PathLike) -> str:
    """Checks a path that a user gave, and expands `~` in it; for configs and arguments, which are text, '' included.

    Raises:
      UserError: see `path`.
    """
    text = os.fspath(text)
    checked = os.fspath(path(text)) if text else ''
    return checked if is_address(text) else os.path.expanduser(text)


def is_address(text: str | os.PathLike) -> bool:
    """Whether this is an address, not a path on this machine."""
    return bool(_scheme(os.fspath(text)))


def absolute(text: str | os.PathLike) -> pathlib.Path:
    """The same path without regard to the working directory; etils would put an address below it."""
    found = path(text)
    return found if is_address(found) else found.absolute()


def is_folder(text: str | os.PathLike) -> bool:
    """Whether this is a folder, on this machine or in object storage."""
    found = path(text)
    return found.is_dir() if is_address(found) else os.path.isdir(found)  # pathlib's raises if a name is too long


def resolved(text: str | os.PathLike) -> pathlib.Path:
    """The absolute path without links, of which object storage has none; a loop of links is no error."""
    found = path(text)
    return found if is_address(found) else pathlib.Path(os.path.realpath(found))


def reason(error: BaseException) -> str:
    """Why an operation on a file failed, in a few words."""
    return getattr(error, 'strerror', None) or (str(error).strip().splitlines() or [type(error).__name__])[0]


def _scheme(text: str) -> str:
    found = re.match(r'([A-Za-z][A-Za-z0-9+.-]*)://', text)
    return found[1] if found else ''


@functools.cache
def _prepared(scheme: str) -> bool:
    """Makes fsspec, and with it etils and Orbax, use our clients; False if the package is missing."""
    if not importlib.util.find_spec(PACKAGES[scheme]):
        return False
    # Outside of the data room nothing may import TensorFlow, and a client that changes within a process would be a
    # trap. The experimental gcsfs asks for each bucket's kind over gRPC, which stalls for a minute where only HTTP gets
    # through.
    os.environ.setdefault('EPATH_USE_TF', 'false')
    os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
    import fsspec
    from etils.epath import gpath

    with contextlib.suppress(AttributeError):  # etils reads the environment once, at its first path of any kind
        gpath._is_tf_installed.cache_clear()
    for name, client in (('gs', 'google.GoogleStorage'), ('gcs', 'google.GoogleStorage'), ('s3', 's3.S3')):
        fsspec.register_implementation(name, f'jax_diffse.files.{client}', clobber=True)
    return True
