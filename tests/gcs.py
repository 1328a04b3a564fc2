"""A small emulator of Google Cloud Storage, in memory: what gcsfs, TensorStore and array_record use of its JSON API.

After https://cloud.google.com/storage/docs/json_api/v1. `Store` can be told to refuse requests, and counts them.
"""

import base64
import datetime
import functools
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from typing import NamedTuple

import google_crc32c


class Object(NamedTuple):
    data: bytes
    generation: int
    updated: str
    digests: dict[str, str]
    content_type: str = 'application/octet-stream'
    metadata: dict = {}


class Request(NamedTuple):
    method: str
    path: str  # decoded, with the query
    sent: int  # bytes, to the store
    received: int  # bytes, from the store
    written: str  # name of the object that it wrote, or ''


class Refusal(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


class Store:
    """Buckets in memory, served on a port of this machine until `close`.

    Attributes:
      url: of the service.
      buckets: bucket -> name -> object.
      requests: all requests so far.
      refused: status that requests get, for example 403, or 0.
      refused_part: what the paths of refused requests contain.
      delay: seconds that every answer takes, as over a network.
    """

    def __init__(self, port: int = 0):
        self.buckets: dict[str, dict[str, Object]] = {}
        self.requests: list[Request] = []
        self.refused, self.refused_part, self.delay, self.lock = 0, '', 0.0, threading.RLock()
        self._uploads: dict[str, tuple[str, str, dict, bytearray]] = {}
        self._generation, self._until = time.time_ns() // 1000, 0.0
        handler = type('Handler', (_Handler,), {'store': self})
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', port), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, address: None  # a client closed its connection
        self.url = f'http://127.0.0.1:{self._server.server_address[1]}'
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """The variables that make all clients use this store."""
        return {'STORAGE_EMULATOR_HOST': self.url, 'TENSORSTORE_GCS_HTTP_URL': self.url, 'NO_GCE_CHECK': 'true',
                'CLOUD_STORAGE_EMULATOR_ENDPOINT': self.url, 'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'x'}

    def fail_for(self, seconds: float) -> None:
        """Answers 503 to all requests in the next seconds."""
        self._until = time.monotonic() + seconds

    def names(self, bucket: str, start: str = '') -> list[str]:
        """The names of the objects that begin with `start`."""
        with self.lock:
            return sorted(name for name in self.buckets[bucket] if name.startswith(start))

    def uploads(self, start: str) -> list[Request]:
        """The requests so far that wrote objects whose names begin with `start`."""
        return [request for request in self.requests if request.written and request.written.startswith(start)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def check_available(self, path: str) -> None:
        if time.monotonic() < self._until:
            raise Refusal(503, 'Backend Error')
        if self.refused and self.refused_part in path:
            raise Refusal(self.refused, 'the account does not have storage.objects.create access')

    def bucket(self, name: str) -> dict[str, Object]:
        if name not in self.buckets:
            raise Refusal(404, 'The specified bucket does not exist.')
        return self.buckets[name]

    def find(self, bucket: str, name: str, query: dict) -> Object:
        found = self.bucket(bucket).get(name)
        if not found or query.get('generation', str(found.generation)) != str(found.generation):
            raise Refusal(404, f'No such object: {bucket}/{name}')
        _check_conditions(found, query, 304)
        return found

    def put(self, bucket: str, name: str, data: bytes, query: dict, resource: dict) -> dict:
        with self.lock:
            objects = self.bucket(bucket)
            _check_conditions(objects.get(name), query, 412)
            self._generation += 1
            objects[name] = Object(bytes(data), self._generation, _now(), _digests(data),
                                   resource.get('contentType', 'application/octet-stream'),
                                   resource.get('metadata') or {})
            return described(bucket, name, objects[name])

    def delete(self, bucket: str, name: str, query: dict) -> None:
        with self.lock:
            found = self.find(bucket, name, {})
            _check_conditions(found, query, 412)
            del self.buckets[bucket][name]

    def start_upload(self, bucket: str, name: str, query: dict, resource: dict) -> str:
        self.bucket(bucket)
        key = hashlib.sha256(f'{bucket}/{name}/{time.time_ns()}'.encode()).hexdigest()
        self._uploads[key] = (bucket, name, {**query, **{'resource': resource}}, bytearray())
        return key

    def continue_upload(self, key: str, data: bytes, content_range: str) -> tuple[int, dict | None]:
        """Adds a chunk -> the number of bytes so far, and the resource of the object when it is complete."""
        if key not in self._uploads:
            raise Refusal(404, 'no such upload')
        bucket, name, query, so_far = self._uploads[key]
        first, total = re.fullmatch(r'bytes (\*|\d+-\d+)/(\*|\d+)', content_range or f'bytes */{len(data)}').groups()
        if first != '*' or data:
            start = 0 if first == '*' else int(first.partition('-')[0])
            del so_far[start:]
            so_far += data
        if total == '*' or len(so_far) < int(total):
            return len(so_far), None
        del self._uploads[key]
        return len(so_far), self.put(bucket, name, so_far, query, query['resource'])

    def cancel_upload(self, key: str) -> None:
        self._uploads.pop(key, None)

    def list(self, bucket: str, query: dict) -> dict:
        prefix, delimiter = query.get('prefix', ''), query.get('delimiter', '')
        items, prefixes = [], []
        start, end = query.get('startOffset', ''), query.get('endOffset')
        after = base64.urlsafe_b64decode(query.get('pageToken', '')).decode()
        limit = int(query.get('maxResults', 1000))
        with self.lock:
            objects = dict(self.bucket(bucket))
        last = ''
        for name in sorted(objects):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            above, found, _ = name[len(prefix):].partition(delimiter) if delimiter else ('', '', '')
            entry = prefix + above + delimiter if found else name
            if entry <= after or entry in prefixes[-1:]:
                continue
            if len(items) + len(prefixes) == limit:
                token = base64.urlsafe_b64encode(last.encode()).decode()
                return {'kind': 'storage#objects', 'items': items, 'prefixes': prefixes, 'nextPageToken': token}
            if found:
                prefixes.append(entry)
            else:
                items.append(described(bucket, name, objects[name]))
            last = entry
        return {'kind': 'storage#objects', 'items': items, 'prefixes': prefixes}


@functools.cache
def shared() -> Store:
    """The store of this process: clients read its address once."""
    return Store()


def described(bucket: str, name: str, found: Object) -> dict:
    """The resource of an object."""
    return {'kind': 'storage#object', 'id': f'{bucket}/{name}/{found.generation}', 'bucket': bucket, 'name': name,
            'size': str(len(found.data)), 'generation': str(found.generation), 'metageneration': '1',
            'updated': found.updated, 'timeCreated': found.updated, 'storageClass': 'STANDARD',
            'contentType': found.content_type, 'metadata': found.metadata, 'etag': f'{found.generation}',
            **found.digests}


def _digests(data: bytes) -> dict[str, str]:
    return {'md5Hash': base64.b64encode(hashlib.md5(data).digest()).decode(),
            'crc32c': base64.b64encode(google_crc32c.Checksum(bytes(data)).digest()).decode()}


def _check_conditions(found: Object | None, query: dict, status_not_match: int) -> None:
    generation = str(found.generation) if found else '0'
    if query.get('ifGenerationMatch', generation) != generation:
        raise Refusal(412, 'conditionNotMet')
    if query.get('ifGenerationNotMatch') == generation:
        raise Refusal(status_not_match, 'conditionNotMet')


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version, disable_nagle_algorithm, wbufsize = 'HTTP/1.1', True, -1
    store: Store

    def do_GET(self):
        self._handle()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args):
        pass

    def _handle(self):
        body, written = self._body(), ''
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        try:
            self.store.check_available(urllib.parse.unquote(self.path))
            status, headers, answer = self._answer(url.path, query, body)
        except Refusal as refusal:
            status, headers = refusal.status, {}
            answer = b'' if status == 304 else json.dumps(
                {'error': {'code': status, 'message': refusal.message, 'errors': []}}).encode()
        if isinstance(answer, dict):
            if answer.get('kind') == 'storage#object' and self.command in ('POST', 'PUT'):
                written = answer['name']
            headers, answer = {'Content-Type': 'application/json', **headers}, json.dumps(answer).encode()
        self.store.requests.append(Request(self.command, urllib.parse.unquote(self.path), len(body), len(answer),
                                           written))
        time.sleep(self.store.delay)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()

    def _body(self) -> bytes:
        if self.headers.get('Transfer-Encoding', '').lower() != 'chunked':
            return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        body = b''
        while size := int(self.rfile.readline().partition(b';')[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, path: str, query: dict, body: bytes) -> tuple[int, dict, bytes | dict]:
        parts = [urllib.parse.unquote(part) for part in path.strip('/').split('/')]
        if parts[0] == 'upload':
            return self._upload(parts[4], query, body)
        parts = parts[parts.index('b') + 1:] if 'b' in parts else []
        if len(parts) == 1 and self.command == 'GET':
            self.store.bucket(parts[0])
            return 200, {}, {'kind': 'storage#bucket', 'name': parts[0], 'id': parts[0], 'location': 'US'}
        if len(parts) == 2 and self.command == 'GET':
            return 200, {}, self.store.list(parts[0], query)
        if len(parts) < 3:
            raise Refusal(501, f'not emulated: {self.command} {path}')
        bucket, _, name, *action = parts
        if action:
            return 200, {}, self._act(bucket, name, action, query, body)
        if self.command == 'DELETE':
            self.store.delete(bucket, name, query)
            return 204, {}, b''
        if self.command == 'GET' and query.get('alt') == 'media':
            return self._media(self.store.find(bucket, name, query))
        found = self.store.find(bucket, name, query)
        if self.command == 'PATCH':
            found = found._replace(metadata={**found.metadata, **json.loads(body).get('metadata', {})})
            self.store.buckets[bucket][name] = found
        return 200, {}, described(bucket, name, found)

    def _act(self, bucket: str, name: str, action: list[str], query: dict, body: bytes) -> dict:
        if action[0] == 'compose':
            sources = json.loads(body)['sourceObjects']
            data = b''.join(self.store.find(bucket, source['name'], {}).data for source in sources)
            return self.store.put(bucket, name, data, query, {})
        found = self.store.find(bucket, name, {})
        target_bucket = action[2] if action[1] == 'b' else bucket
        made = self.store.put(target_bucket, action[-1], found.data, query,
                              {'contentType': found.content_type, 'metadata': found.metadata})
        if action[0] == 'moveTo':
            self.store.delete(bucket, name, {})
        if action[0] == 'rewriteTo':
            return {'kind': 'storage#rewriteResponse', 'done': True, 'resource': made}
        return made

    def _media(self, found: Object) -> tuple[int, dict, bytes]:
        hashes = found.digests
        headers = {'Content-Type': found.content_type, 'x-goog-generation': str(found.generation),
                   'x-goog-metageneration': '1', 'x-goog-stored-content-length': str(len(found.data)),
                   'x-goog-hash': f'crc32c={hashes["crc32c"]},md5={hashes["md5Hash"]}',
                   'x-goog-stored-content-encoding': 'identity', 'Accept-Ranges': 'bytes'}
        asked = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
        if not asked or asked.groups() == ('', ''):
            return 200, headers, found.data
        first, last = asked.groups()
        size = len(found.data)
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last) + 1, size) if first and last else size
        if start >= size:
            raise Refusal(416, 'InvalidRange')
        return 206, {**headers, 'Content-Range': f'bytes {start}-{end - 1}/{size}'}, found.data[start:end]

    def _upload(self, bucket: str, query: dict, body: bytes) -> tuple[int, dict, bytes | dict]:
        if 'upload_id' in query:
            return self._continue(query['upload_id'], body)
        kind = query.get('uploadType')
        if kind == 'media':
            resource = {'contentType': self.headers.get('Content-Type', 'application/octet-stream')}
            return 200, {}, self.store.put(bucket, query['name'], body, query, resource)
        if kind == 'multipart':
            resource, data = _parts(body, self.headers['Content-Type'])
            return 200, {}, self.store.put(bucket, query.get('name') or resource['name'], data, query, resource)
        resource = json.loads(body) if body else {}
        key = self.store.start_upload(bucket, query.get('name') or resource['name'], query, resource)
        at = f'{self.store.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={key}'
        return 200, {'Location': at}, b''

    def _continue(self, key: str, body: bytes) -> tuple[int, dict, bytes | dict]:
        if self.command == 'DELETE':
            self.store.cancel_upload(key)
            return 204, {}, b''
        size, made = self.store.continue_upload(key, body, self.headers.get('Content-Range', ''))
        headers = {'Range': f'bytes=0-{size - 1}'} if size else {}
        return (200, {}, made) if made else (308, headers, b'')


def _parts(body: bytes, content_type: str) -> tuple[dict, bytes]:
    """The resource and the data of a multipart upload."""
    boundary = re.escape(re.search(r'boundary="?([^";]+)"?', content_type)[1].encode())
    found = re.fullmatch(rb'\r?\n?--%(b)s\r?\n.*?\r?\n\r?\n(.*?)\r?\n--%(b)s\r?\n.*?\r?\n\r?\n(.*)\r?\n--%(b)s--\s*' %
                         {b'b': boundary}, body, re.DOTALL)
    return json.loads(found[1]), found[2]
