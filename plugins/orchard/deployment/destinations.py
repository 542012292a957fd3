"""Files named by their content, put once where a cluster reads them: an S3 prefix, or a folder of Databricks."""

import base64
import hashlib
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchard_jobs.contract.locations import S3Location, below, is_in_workspace, parent_of, volume_of, without_slash
from orchard_jobs.errors import ConfigurationError

from orchard.clients import aws_client, databricks_client, explaining_aws_errors, explaining_databricks_errors
from orchard.deployment.package import MANIFEST, Package

if TYPE_CHECKING:
    from databricks.sdk.mixins.files import FilesExt
    from databricks.sdk.mixins.workspace import WorkspaceExt

# The release of EMR for what is made here: an application, or a job's own cluster.
EMR_RELEASE = "emr-7.11.0"
# What Spark unpacks of `spark.archives`, and keeps links and the right to execute.
_ARCHIVE_ENDINGS = (".tar.gz", ".tgz")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Readers of URIs take these for something else.
_ODD = re.compile(r"[#?%\\\s]")


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine that goes to `path`, relative to the place; its size and SHA-256 in hex."""

    path: str
    source: Path
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: str, source: Path) -> "LocalFile":
        """Measure a file, in chunks."""
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, source, source.stat().st_size, sha256)


class Destination(Protocol):
    """Where files go."""

    @property
    def uri(self) -> str:
        """The place as a cluster names it, without a trailing slash."""

    def has(self, file: LocalFile) -> bool:
        """Tell whether the file is there with equal size and digest. JobError when the place cannot be read."""

    def read(self, path: str) -> bytes | None:
        """Return the content of a small file of the place, or None. JobError when the place cannot be read."""

    def put(self, file: LocalFile) -> None:
        """Write the file, over a damaged one. JobError when the place cannot be written."""


def destination_of(text: str, connection: str | None) -> Destination:
    """Return the place of an S3 prefix, or of a folder on a volume or among a workspace's files; reaches nothing yet.

    Raises:
        ConfigurationError: the text names none of these places, or there is no log-in.
    """
    uri = without_slash(text)
    location = S3Location.find(uri)
    if location and _BUCKET.fullmatch(location.bucket) and _is_plain(below("/", location.key)):
        return S3Prefix(location, aws_client("s3", connection))
    if _is_plain(uri):
        if volume_of(uri):
            return Volume(uri, databricks_client(connection).files)
        if is_in_workspace(uri):
            return WorkspaceFolder(uri, databricks_client(connection).workspace)
    raise ConfigurationError(
        f"{text!r} is none of s3://BUCKET/PREFIX, /Volumes/CATALOG/SCHEMA/VOLUME/FOLDER and /Workspace/FOLDER (without spaces, "
        "# ? % or \\): name the folder that the cluster reads"
    )


def _is_plain(path: str) -> bool:
    return "//" not in path and not _ODD.search(path)


@dataclass(frozen=True)
class S3Prefix:
    """A prefix of a bucket. A file's digest is in its object's metadata."""

    location: S3Location
    client: Any

    @property
    def uri(self) -> str:
        """See Destination."""
        return self.location.uri

    def has(self, file: LocalFile) -> bool:
        """See Destination."""
        from botocore.exceptions import ClientError

        with self._told("read"):
            try:
                found = self.client.head_object(Bucket=self.location.bucket, Key=self._key(file))
            except ClientError as error:
                if error.response["Error"]["Code"] == "404":
                    return False
                raise
        return (found["ContentLength"], found["Metadata"].get("sha256")) == (file.size_bytes, file.sha256)

    def read(self, path: str) -> bytes | None:
        """See Destination."""
        with self._told("read"):
            try:
                found = self.client.get_object(Bucket=self.location.bucket, Key=self.location.join(path).key)
            except self.client.exceptions.NoSuchKey:
                return None
            return bytes(found["Body"].read())

    def put(self, file: LocalFile) -> None:
        """See Destination."""
        with self._told("write"):
            extra = {"Metadata": {"sha256": file.sha256}}
            self.client.upload_file(str(file.source), self.location.bucket, self._key(file), ExtraArgs=extra)

    def _key(self, file: LocalFile) -> str:
        return self.location.join(file.path).key

    def _told(self, verb: str) -> AbstractContextManager[None]:
        return explaining_aws_errors(f"{verb} {self.uri}", "the bucket must be there")


@dataclass(frozen=True)
class Volume:
    """A folder of a Unity Catalog volume. It keeps no digest of a file, so the file is read again."""

    uri: str
    files: "FilesExt"

    def has(self, file: LocalFile) -> bool:
        """See Destination."""
        return _is_content(file, self.read(file.path))

    def read(self, path: str) -> bytes | None:
        """See Destination."""
        from databricks.sdk.errors import NotFound

        with self._told("read"):
            try:
                # Of a file that is not there, the SDK's download logs what else it tries.
                self.files.get_metadata(below(self.uri, path))
                contents = self.files.download(below(self.uri, path)).contents
            except NotFound:
                return None
            return b"" if contents is None else contents.read()

    def put(self, file: LocalFile) -> None:
        """See Destination."""
        path = below(self.uri, file.path)
        with self._told("write"), file.source.open("rb") as contents:
            self.files.create_directory(parent_of(path))
            self.files.upload(path, contents, overwrite=True)

    def _told(self, verb: str) -> AbstractContextManager[None]:
        needs = "the volume must be there, and the user needs READ VOLUME and WRITE VOLUME on it"
        return explaining_databricks_errors(f"{verb} {self.uri}", needs)


@dataclass(frozen=True)
class WorkspaceFolder:
    """A folder of a workspace's files, for a workspace without volumes. It keeps no digest, so a file is read again."""

    uri: str
    files: "WorkspaceExt"

    def has(self, file: LocalFile) -> bool:
        """See Destination."""
        return _is_content(file, self.read(file.path))

    def read(self, path: str) -> bytes | None:
        """See Destination."""
        from databricks.sdk.errors import NotFound
        from databricks.sdk.service.workspace import ExportFormat

        with self._told("read"):
            try:
                with self.files.download(below(self.uri, path), format=ExportFormat.RAW) as contents:
                    return contents.read()
            except NotFound:
                return None

    def put(self, file: LocalFile) -> None:
        """See Destination."""
        from databricks.sdk.service.workspace import ImportFormat

        path = below(self.uri, file.path)
        content = base64.b64encode(file.source.read_bytes()).decode()
        with self._told("write"):
            self.files.mkdirs(parent_of(path))
            # Not `upload`: the SDK never repeats one that the workspace is too busy for.
            self.files.import_(path, content=content, format=ImportFormat.RAW, overwrite=True)

    def _told(self, verb: str) -> AbstractContextManager[None]:
        return explaining_databricks_errors(f"{verb} {self.uri}", "the user needs CAN EDIT on the folder")


def _is_content(file: LocalFile, content: bytes | None) -> bool:
    return content is not None and hashlib.sha256(content).hexdigest() == file.sha256


def package_files(package: Package, folder: Path) -> list[LocalFile]:
    """Write a package's files to a local folder and return them; the manifest comes last and marks a complete package."""
    written = package.write(folder)
    names = sorted(package.files, key=lambda name: (name == MANIFEST, name))
    return [LocalFile.of(below(package.name, name), written / name) for name in names]


def environment_file(archive: Path) -> LocalFile:
    """Return an environment's archive under a name of its content: `environment-<first 12 digits of its SHA-256>.tar.gz`.

    Raises:
        ConfigurationError: it does not exist, or Spark cannot unpack it.
    """
    ending = next((ending for ending in _ARCHIVE_ENDINGS if archive.name.endswith(ending)), None)
    if ending is None:
        raise ConfigurationError(f"--environment {archive}: Spark unpacks only {', '.join(_ARCHIVE_ENDINGS)}")
    if not archive.is_file():
        raise ConfigurationError(
            f"--environment {archive} is not a file: make it in the jobs' environment, for example by conda-pack"
        )
    found = LocalFile.of("", archive)
    return LocalFile(f"environment-{found.sha256[:12]}{ending}", archive, found.size_bytes, found.sha256)


def application_named(name: str, release: str, connection: str | None) -> str | None:
    """Return the id of the EMR Serverless application for Spark of a name and release, or None.

    Raises:
        ConfigurationError: one of that name is of another type or release.
        JobError: the service cannot be reached, or refuses.
    """
    with _emr_faults("list"):
        pages = aws_client("emr-serverless", connection).get_paginator("list_applications").paginate()
        found = [one for page in pages for one in page["applications"] if one["name"] == name and one["state"] != "TERMINATED"]
    if not found:
        return None
    application = found[0]
    if (application["type"].upper(), application["releaseLabel"]) != ("SPARK", release):
        raise ConfigurationError(
            f"the EMR Serverless application {name!r} ({application['id']}) is of type {application['type']} and release "
            f"{application['releaseLabel']}, not Spark and {release}: name another by --application, or its release by --release"
        )
    return str(application["id"])


def create_application(name: str, release: str, connection: str | None) -> str:
    """Create an EMR Serverless application for Spark, which starts with a job and stops when idle; return its id.

    Raises:
        JobError: the service cannot be reached, or refuses.
    """
    with _emr_faults("create"):
        client = aws_client("emr-serverless", connection)
        made = client.create_application(name=name, releaseLabel=release, type="SPARK", tags={"orchard": "jobs"})
    return str(made["applicationId"])


def _emr_faults(verb: str) -> AbstractContextManager[None]:
    return explaining_aws_errors(
        f"{verb} EMR Serverless applications", "the user needs emr-serverless:ListApplications and CreateApplication"
    )
