"""The warehouse's files as objects: read, create once, list, remove. obstore underneath, so `file:` and `s3:` behave the same."""

import hashlib
import importlib
import io
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError
from obstore.store import LocalStore, S3Store

from orchard_jobs.contract.locations import S3Location, local_path, warehouse_uri
from orchard_jobs.errors import DamagedFileError, JobError
from orchard_jobs.store_errors import explaining_store_errors

if TYPE_CHECKING:
    from botocore.config import Config
    from obstore.store import RetryConfig

# The variable that names Unity Catalog's service credential for S3. Serverless compute has no log-in of its own.
SERVICE_CREDENTIAL = "ORCHARD_SERVICE_CREDENTIAL"
_S3, _REGION = "https://s3.amazonaws.com", "us-east-1"
_HASH_CHUNK = 8 * 1024 * 1024
_nothing_where_absent = partial(suppress, NotFoundError, FileNotFoundError)


def s3_store(bucket: str, prefix: str | None = None, retry_config: "RetryConfig | None" = None) -> S3Store:
    """Return a store of one bucket, with the endpoint and credentials that the environment names.

    The region is the environment's. Where it names none, as in the containers of a cluster, S3 is asked for the bucket's.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options: dict[str, Any] = {"region": named or (_REGION if endpoint else _region_of(bucket))}
    if endpoint:
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    if name := os.environ.get(SERVICE_CREDENTIAL):
        options["credential_provider"] = _service_log_in(name)
    client: Any = {"allow_http": True} if endpoint and endpoint.startswith("http://") else {}
    return S3Store(bucket, prefix=prefix, client_options=client, retry_config=retry_config, **options)


def s3_client(bucket: str, config: "Config | None" = None) -> Any:
    """Return a boto3 client that reaches a bucket as `s3_store` does: the same endpoint, region and credentials."""
    import boto3

    name = os.environ.get(SERVICE_CREDENTIAL)
    session = boto3.Session(botocore_session=_service_session(name)) if name else boto3.Session()
    # The region as the store takes it: boto3 alone would not look at AWS_REGION.
    return session.client("s3", region_name=s3_store(bucket).config.get("region"), config=config)


@cache
def _region_of(bucket: str) -> str:
    """Return a bucket's region, which S3 names to anybody, even in a refusal; `us-east-1` where it names none."""
    request = urllib.request.Request(f"{_S3}/{bucket}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as error:
        headers = error.headers
    except OSError:  # the first request for an object says what cannot be reached
        return _REGION
    return str(headers.get("x-amz-bucket-region") or _REGION)


@cache
def _service_log_in(name: str) -> Any:
    """Return the log-in of Databricks's service credential of a name, which renews itself."""
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    return Boto3CredentialProvider(boto3.Session(botocore_session=_service_session(name)))


def _service_session(name: str) -> Any:
    runtime: Any = importlib.import_module("databricks.sdk.runtime")  # on Databricks alone
    return runtime.dbutils.credentials.getServiceCredentialsProvider(name)


class SeekableFile(io.RawIOBase):
    """obstore's reader under Python's file protocol: pyarrow asks for `closed` and `readable`, which the reader lacks."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    @property
    def size_bytes(self) -> int:
        """The file's size."""
        return int(self._reader.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, buffer: Any) -> int:
        found = self._reader.read(len(buffer))
        buffer[: len(found)] = memoryview(found)
        return len(found)


@dataclass(frozen=True)
class StoredFile:
    """One file as the store knows it: its path relative to the warehouse, its size, when it was last written."""

    path: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class Warehouse:
    """One warehouse. Every path is relative to its URI; instances can be pickled to a worker.

    Attributes:
        uri: `file:///...` or `s3://bucket/prefix`, without a trailing slash.
    """

    uri: str

    @classmethod
    def at(cls, text: str) -> "Warehouse":
        """Return the warehouse of a path or URI; ConfigurationError when it is neither."""
        return cls(warehouse_uri(text))

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    @cached_property
    def _store(self) -> Any:
        folder = local_path(self.uri)
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            return LocalStore(folder)
        place = S3Location.parse(self.uri)
        return s3_store(place.bucket, place.key or None)

    def uri_of(self, path: str) -> str:
        """Return a relative path as Spark's readers and writers take it."""
        return f"{self.uri}/{path}"

    def read(self, path: str) -> bytes:
        """Return a file's bytes; DamagedFileError when it is not there."""
        found = self.read_if_there(path)
        if found is None:
            raise DamagedFileError(self.uri_of(path), "is not there", "it was removed, or the run that writes it never finished")
        return found

    def read_if_there(self, path: str) -> bytes | None:
        """Return a file's bytes, or None."""
        with _nothing_where_absent(), explaining_store_errors(self.uri_of(path)):
            return bytes(obstore.get(self._store, path).bytes())
        return None

    def create(self, path: str, content: bytes) -> bool:
        """Write a file unless one is there; return whether this call wrote it. Of two writers at once one wins."""
        try:
            with explaining_store_errors(self.uri_of(path)):
                obstore.put(self._store, path, content, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def rewrite(self, path: str, content: bytes) -> None:
        """Write a file whether or not one is there. Only for running counts and a view's pointer, never for data."""
        with explaining_store_errors(self.uri_of(path)):
            obstore.put(self._store, path, content)

    def open(self, path: str) -> Any:
        """Return a file for reading with seek, so that a Parquet reader takes only what it needs."""
        with explaining_store_errors(self.uri_of(path)):
            return SeekableFile(obstore.open_reader(self._store, path))

    def open_if_there(self, path: str) -> "SeekableFile | None":
        """Return a file as `open` does, or None."""
        with _nothing_where_absent(), explaining_store_errors(self.uri_of(path)):
            return SeekableFile(obstore.open_reader(self._store, path))
        return None

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, or None when it is not there."""
        found = self.stat(path)
        return None if found is None else found.size_bytes

    def stat(self, path: str) -> StoredFile | None:
        """Return what the store knows of a file, or None when it is not there."""
        with _nothing_where_absent(), explaining_store_errors(self.uri_of(path)):
            found = obstore.head(self._store, path)
            return StoredFile(path, int(found["size"]), found["last_modified"])
        return None

    def list(self, folder: str) -> Iterator[tuple[str, int]]:
        """Yield (path, size) of every file below a folder, in no particular order."""
        return ((file.path, file.size_bytes) for file in self.files(folder))

    def files(self, folder: str) -> Iterator[StoredFile]:
        """Yield every file below a folder, in no particular order."""
        pages = iter(obstore.list(self._store, prefix=folder))
        while True:
            with explaining_store_errors(self.uri_of(folder)):
                page = next(pages, None)
            if page is None:
                return
            for item in page:
                yield StoredFile(item["path"], int(item["size"]), item["last_modified"])

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when it is not there. Only for what no table names."""
        with _nothing_where_absent(), explaining_store_errors(self.uri_of(path)):
            obstore.delete(self._store, path)

    def folders(self, folder: str) -> tuple[str, ...]:
        """Return the names of the folders right below a folder, sorted."""
        with explaining_store_errors(self.uri_of(folder)):
            found = obstore.list_with_delimiter(self._store, folder)["common_prefixes"]
        return tuple(sorted(path.rstrip("/").rpartition("/")[2] for path in found))

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a file, read in chunks."""
        found = hashlib.sha256()
        with explaining_store_errors(self.uri_of(path)):
            for chunk in obstore.get(self._store, path).stream(min_chunk_size=_HASH_CHUNK):
                found.update(chunk)
        return found.hexdigest()


@dataclass(frozen=True)
class DetachedWarehouse(Warehouse):
    """A warehouse for a worker without a network: copies of a few files to read, and room for the files it creates.

    Attributes:
        copies: content by path of the files that it can read.
    """

    copies: dict[str, bytes] = field(default_factory=dict, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "copies": self.copies}

    @cached_property
    def _created(self) -> dict[str, bytes]:
        return {}

    @cached_property
    def _store(self) -> Any:
        raise JobError(f"this worker has no network and only a few files of {self.uri}: it can read no others")

    def read_if_there(self, path: str) -> bytes | None:
        """Return a file's bytes, or None when there is no copy of it."""
        return self.copies.get(path)

    def create(self, path: str, content: bytes) -> bool:
        """Keep a file for `take_created`."""
        self._created[path] = content
        return True

    def rewrite(self, path: str, content: bytes) -> None:
        """Do nothing: the driver counts the files that it takes."""

    def take_created(self) -> list[tuple[str, bytes]]:
        """Return the files that were created, as (path, content), and forget them."""
        created = list(self._created.items())
        self._created.clear()
        return created
