"""The client of Google Cloud Storage: gcsfs, with errors that say what is wrong."""

import contextlib
import datetime
import errno
import logging
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import aiohttp
import gcsfs.core
import gcsfs.retry
import google.auth.exceptions
import requests
from fsspec import asyn

from jax_diffse.errors import StoreError

logging.getLogger('gcsfs').setLevel(logging.CRITICAL)  # it raises its errors and also logs them, with tracebacks
logging.getLogger('google.auth').setLevel(logging.ERROR)  # missing credentials are an error of the first request

CONNECT_SECONDS, ANSWER_SECONDS = 15.0, 60.0  # that a request waits for a connection, and for each part of the answer


class GoogleStorage(gcsfs.core.GCSFileSystem):
    """A file system of fsspec. It caches no listings, because other processes write to the same buckets.

    Every failed request raises an `OSError` with the address and the reason: FileNotFoundError for a missing object,
    FileExistsError for a condition that does not hold, and `StoreError` for all else.
    """

    def __init__(self, *args, **kwargs):
        # Without a limit, a server that never answers would hang a process. A timeout is repeated like other failures.
        limits = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS)
        super().__init__(*args, **{'use_listings_cache': False, 'requests_timeout': limits, **kwargs})

    async def _call(self, method, path, *args, **kwargs):
        with _translated(method, self._format_path(path, args)):
            return await super()._call(method, path, *args, **kwargs)

    async def _get_file(self, rpath, lpath, **kwargs):
        with _translated('GET', self.url(rpath)):
            return await super()._get_file(rpath, lpath, **kwargs)

    async def _info(self, path, generation=None, **kwargs):
        with contextlib.suppress(FileNotFoundError):  # gcsfs always asks for a folder of this name as well
            found = await self._get_object(self._strip_protocol(path))
            if not found['name'].endswith('/'):
                return found
        try:
            return await super()._info(path, generation=generation, **kwargs)
        except FileNotFoundError as error:
            raise _missing(self.unstrip_protocol(path)) from error

    async def _isdir(self, path):
        try:
            return (await self._info(path))['type'] == 'directory'
        except FileNotFoundError:
            return False

    def _open(self, path, mode='rb', **kwargs):
        file = super()._open(path, mode, **kwargs)
        if mode == 'rb' and file.details['type'] == 'directory':  # which gcsfs reads as an empty file
            raise IsADirectoryError(errno.EISDIR, 'Is a directory', self.unstrip_protocol(path))
        return file

    async def _mkdir(self, path, **kwargs):
        """Only checks that the bucket exists: buckets have no folders, and gcsfs would create a missing bucket."""
        await self._call('GET', 'b/{}/o', self.split_path(path)[0], maxResults=1)

    async def _makedirs(self, path, exist_ok=False):
        await self._mkdir(path)

    def objects(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the address of each object below a folder and what `info` says of it, with one request per thousand.

        gcsfs's `find` keeps all that the store says of all objects, which takes some gigabytes for a million.
        """
        bucket, prefix, _ = self.split_path(folder)
        query = {'prefix': prefix, 'fields': 'items(name,size,generation,updated,md5Hash),nextPageToken'}
        while True:
            page = self.call('GET', 'b/{}/o', bucket, json_out=True, **query)
            for found in page.get('items', ()):
                yield f'gs://{bucket}/{found["name"]}', {
                    **found, 'mtime': datetime.datetime.fromisoformat(found['updated'])}
            if not page.get('nextPageToken'):
                return
            query['pageToken'] = page['nextPageToken']

    async def _write_if(self, path: str, data: bytes, version: str) -> str:
        """Writes an object if its generation is `version`, '' if it must not exist -> its new generation."""
        bucket, key, _ = self.split_path(path)
        url = f'{self._location}/upload/storage/v1/b/{urllib.parse.quote(bucket)}/o'
        made = await self._call('POST', url, uploadType='media', name=key, ifGenerationMatch=version or '0', data=data,
                                headers={'Content-Type': 'application/octet-stream'}, json_out=True)
        return made['generation']

    async def _delete_if(self, path: str, version: str) -> None:
        bucket, key, _ = self.split_path(path)
        await self._call('DELETE', 'b/{}/o/{}', bucket, key, ifGenerationMatch=version)

    call = asyn.sync_wrapper(_call)
    mkdir = asyn.sync_wrapper(_mkdir)
    write_if = asyn.sync_wrapper(_write_if)
    delete_if = asyn.sync_wrapper(_delete_if)


@contextlib.contextmanager
def _translated(method: str, url: str) -> Iterator[None]:
    address, of_object = _address(url)
    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError as error:
        if of_object:
            raise _missing(address) from error
        raise StoreError(errno.ENOENT, 'there is no such bucket', address) from error
    except FileExistsError:
        raise
    except gcsfs.retry.HttpError as error:
        raise _http_error(error, address) from error
    except google.auth.exceptions.GoogleAuthError as error:
        raise StoreError(errno.EACCES, f'the credentials are not valid ({_line(error)}); log in: gcloud auth '
                         'application-default login', address) from error
    except (TimeoutError, aiohttp.ClientError, requests.exceptions.RequestException) as error:
        raise StoreError(errno.EHOSTUNREACH, f'the store cannot be reached ({_line(error)})', address) from error
    except OSError as error:
        if not str(error).startswith('Forbidden'):
            raise
        detail = str(error).partition('\n')[2].strip()
        raise StoreError(errno.EACCES, f'no permission ({detail})' if detail else 'no permission', address) from error
    except ValueError as error:  # of gcsfs: a bad request, or a bucket whose readers pay
        detail = _line(str(error).partition('\n')[2] or error)
        raise StoreError(errno.EINVAL, f'the store refuses the request ({detail})', address) from error


def _http_error(error: gcsfs.retry.HttpError, address: str) -> StoreError:
    if error.code == 401:
        return StoreError(errno.EACCES, 'the store accepts no request without valid credentials; log in: gcloud auth '
                          'application-default login', address)
    if error.code == 416:  # a range behind the object's end
        return StoreError(errno.ESTALE, 'it has changed while it was read', address)
    return StoreError(errno.EIO, f'the store answers with an error ({_line(error)}); try again later', address)


def _missing(address: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, 'No such file or directory', address)


def _address(url: str) -> tuple[str, bool]:
    """The address that a request is about, and whether it is one object's."""
    found = re.search(r'/b/([^/?]+)(?:/o/([^/?]+))?', url)
    bucket, name = (urllib.parse.unquote(part or '') for part in found.groups()) if found else ('', '')
    return f'gs://{bucket}/{name}'.rstrip('/'), bool(name)


def _line(error: Any) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
