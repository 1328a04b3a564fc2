"""The client of S3: s3fs, with conditional writes, and with errors that say what is wrong."""

import errno
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import s3fs
from fsspec import asyn

from jax_diffse.errors import StoreError


class S3(s3fs.S3FileSystem):
    """A file system of fsspec. It caches no listings, because other processes write to the same buckets.

    Every failed request raises an `OSError`: FileNotFoundError for a missing object, FileExistsError for a condition
    that does not hold, and `StoreError` for all else.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{'use_listings_cache': False, **kwargs})

    async def _call_s3(self, method, *arguments, **kwargs):
        try:
            return await super()._call_s3(method, *arguments, **kwargs)
        except (FileExistsError, StoreError):
            raise
        except FileNotFoundError as error:
            if 'bucket' in str(error):  # 'The specified bucket does not exist', otherwise 'key'
                raise StoreError(errno.ENOENT, 'there is no such bucket', f's3://{kwargs["Bucket"]}') from error
            raise _missing(f's3://{kwargs["Bucket"]}/{kwargs.get("Key", "")}') from error
        except (botocore.exceptions.BotoCoreError, OSError) as error:
            address = '/'.join(['s3:/', *(str(kwargs[key]) for key in ('Bucket', 'Key') if key in kwargs)])
            number = getattr(error, 'errno', None) or errno.EIO
            raise StoreError(number, ' '.join(str(error).split()), address) from error

    async def _info(self, path, *args, **kwargs):
        try:
            return await super()._info(path, *args, **kwargs)
        except FileNotFoundError as error:
            raise _missing(self.unstrip_protocol(path)) from error

    def objects(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the address of each object below a folder, and what `info` says of it."""
        return ((f's3://{name}', info) for name, info in self.find(folder, detail=True).items())

    async def _write_if(self, path: str, data: bytes, version: str) -> str:
        """Writes an object if its ETag is `version`, '' if it must not exist -> its new ETag."""
        bucket, key, _ = self.split_path(path)
        condition = {'IfMatch': version} if version else {'IfNoneMatch': '*'}
        return (await self._call_s3('put_object', Bucket=bucket, Key=key, Body=data, **condition))['ETag']

    async def _delete_if(self, path: str, version: str) -> None:
        bucket, key, _ = self.split_path(path)
        await self._call_s3('delete_object', Bucket=bucket, Key=key, IfMatch=version)

    call_s3 = asyn.sync_wrapper(_call_s3)
    write_if = asyn.sync_wrapper(_write_if)
    delete_if = asyn.sync_wrapper(_delete_if)


def _missing(address: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, 'No such file or directory', address)
