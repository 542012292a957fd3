"""The forms of batch ids and of URIs: of the warehouse, of images, of S3, of Databricks. Knows nothing of what lies there."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchard_jobs.errors import ConfigurationError

_S3 = "s3://"
# What desktops leave beside files, in lower case: Windows does not tell the cases apart.
_JUNK = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_ODD_KEY = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")
_BATCH_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}")


@dataclass(frozen=True)
class S3Location:
    """A bucket, an object in it, or the objects below a prefix.

    Attributes:
        bucket: the bucket's name, not empty.
        key: the object's raw key or a prefix, never percent-encoded; empty for the bucket itself.
    """

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, uri: str) -> "S3Location":
        """Return the location of a `s3://bucket/key` URI; raise ConfigurationError for any other text."""
        bucket, _, key = uri.removeprefix(_S3).partition("/")
        if not is_s3(uri) or not bucket:
            raise ConfigurationError(f"{uri!r} is not an S3 URI: write it as s3://BUCKET/KEY")
        return cls(bucket, key)

    @classmethod
    def find(cls, uri: str) -> "S3Location | None":
        """Return the location of a `s3://bucket/key` URI; None for any other text."""
        try:
            return cls.parse(uri)
        except ConfigurationError:
            return None

    @property
    def uri(self) -> str:
        """The location as `s3://bucket/key`, or `s3://bucket` for the bucket itself."""
        return f"{_S3}{self.bucket}/{self.key}" if self.key else f"{_S3}{self.bucket}"

    def join(self, *elements: str) -> "S3Location":
        """Return the location whose key has further elements; a key that ends in `/` gets no second one."""
        return S3Location(self.bucket, "/".join([*([self.key.removesuffix("/")] if self.key else []), *elements]))


def is_s3(uri: str) -> bool:
    """Tell whether a URI names a place on S3."""
    return uri.startswith(_S3)


def checked_batch_id(batch_id: str) -> str:
    """Return the batch id when it can be part of a path and of a log; raise ConfigurationError otherwise."""
    if not _BATCH_ID.fullmatch(batch_id):
        raise ConfigurationError(
            f"batch id {batch_id!r} is not 1 to 100 letters, digits, '.', '_' or '-' beginning with a letter or digit: "
            "change ORCHARD_BATCH_KEY_FORMAT, or start the run with another partition key"
        )
    return batch_id


def is_on_volume(uri: str) -> bool:
    """Tell whether a path is one of Unity Catalog's volumes."""
    return uri.startswith("/Volumes/")


def volume_of(path: str) -> str | None:
    """Return the volume that a path lies on, `/Volumes/CATALOG/SCHEMA/VOLUME`; None for a path that names no volume."""
    elements = path.split("/")[:5]
    return "/".join(elements) if is_on_volume(path) and len(elements) == 5 and all(elements[1:]) else None


def is_in_workspace(uri: str) -> bool:
    """Tell whether a path is one of a Databricks workspace's files."""
    return uri.startswith("/Workspace/")


def is_below(uri: str, folder: str) -> bool:
    """Tell whether a URI lies below a folder, whose own has no trailing slash."""
    return uri.startswith(f"{folder}/")


def below(folder: str, *elements: str) -> str:
    """Return the URI of what lies below a folder, whose own may end in a slash."""
    return "/".join([without_slash(folder), *elements])


def without_slash(folder: str) -> str:
    """Return a folder's path or URI without the slash that it may end in."""
    return folder.rstrip("/")


def prefix_of(folder: str) -> str:
    """Return what all paths below a folder begin with: the folder and one slash; nothing for no folder."""
    return f"{without_slash(folder)}/" if folder else ""


def folder_uri(uri: str) -> str:
    """Return a folder's URI in one form: `s3:` for Hadoop's other names of it, no slash at the end."""
    scheme, mark, path = uri.partition("://")
    return f"{'s3' if scheme in ('s3a', 's3n') else scheme}{mark}{without_slash(path)}"


def beside(uri: str, name: str) -> str:
    """Return the URI of the file or folder of a name in the folder that a URI lies in."""
    return f"{parent_of(uri)}/{name}"


def name_of(uri: str) -> str:
    """Return the last element of a path or a URI, which has no trailing slash: `a/b.txt` gives `b.txt`."""
    return uri.rpartition("/")[2]


def parent_of(uri: str) -> str:
    """Return the folder that a path or a URI lies in, without a trailing slash; empty for a path of one element."""
    return uri.rpartition("/")[0]


def image_uri(bucket: str, key: str) -> str:
    """Return `s3://bucket/` + the raw key, never percent-encoded."""
    return S3Location(bucket, key).uri


def split_image_uri(uri: str) -> tuple[str, str]:
    """Return (store, key) of an image URI: `s3://bucket/a b.jpg` gives (`s3://bucket`, `a b.jpg`).

    The key is raw: `#`, `?` and `%` are part of it. `file:///folder/x.jpg` gives (`file:///`, `folder/x.jpg`).
    """
    scheme, _, rest = uri.partition("://")
    host, _, key = rest.partition("/")
    return (f"{scheme}://{host}" if host else f"{scheme}:///"), key


def file_uri(path: str) -> str:
    """Return `file://` + an absolute path, never percent-encoded."""
    return f"file://{path}"


def hadoop_uri(uri: str) -> str:
    """Return an image's URI as Hadoop spells it: `file:/folder/x.jpg` for `file:///folder/x.jpg`."""
    path = local_path(uri)
    return uri if path is None else f"file:{path}"


def common_folder(uris: Iterable[str]) -> str:
    """Return the deepest folder, as a URI that ends in `/`, below which all the files lie."""
    return os.path.commonprefix(list(uris)).rpartition("/")[0] + "/"


def first_folder(key: str, prefix: str) -> str | None:
    """Return the first folder of an object's key below a prefix; None for a key elsewhere, in no folder or without a name."""
    folder, _, name = key.removeprefix(prefix).partition("/")
    return folder if has_prefix(key, prefix) and name else None


def has_prefix(key: str, prefix: str) -> bool:
    """Tell whether an object's key begins with a prefix; every key begins with the empty one."""
    return key.startswith(prefix)


def is_odd_key(key: str) -> bool:
    """Tell whether clients that take a key for a path refuse or alter it, as obstore does.

    S3 allows such keys: an element is empty, `.` or `..`, or a character is a control character.
    """
    return _ODD_KEY.search(key) is not None


def is_folder_mark(key: str) -> bool:
    """Tell whether an object only marks a folder. Consoles create such objects; their keys end in `/`."""
    return key.endswith("/")


def is_desktop_junk(key: str) -> bool:
    """Tell whether an object is what a desktop leaves beside files: macOS's `._*`, .DS_Store and __MACOSX/, Windows's caches."""
    *folders, name = key.split("/")
    return name.startswith("._") or name.lower() in _JUNK or "__MACOSX" in (*folders, name)


def label_of(key: str, batch_prefix: str) -> str | None:
    """Return the label: the second-to-last element of the key below the batch, or None directly under it."""
    elements = key.removeprefix(batch_prefix).split("/")
    return elements[-2] if len(elements) > 1 else None


def warehouse_uri(text: str) -> str:
    """Return a warehouse's URI without a trailing slash: `file:///...` for an absolute path, `s3://...` as it is.

    Raises:
        ConfigurationError: another scheme, a relative path, no bucket, or a character that URIs give a meaning of their own.
    """
    scheme, mark, rest = text.partition("://") if "://" in text else ("file", "", text.removeprefix("file:"))
    is_file = scheme == "file" and rest.startswith("/") and rest.strip("/") != ""
    is_bucket = scheme in ("s3", "s3a") and bool(mark) and rest.partition("/")[0] != ""
    if not (is_file or is_bucket):
        raise ConfigurationError(
            f"warehouse {text!r} is neither an absolute path nor a file: or s3: URI, of a folder: set ORCHARD_WAREHOUSE"
        )
    odd = sorted(set(rest) & set("#?%\\"))
    if odd:
        raise ConfigurationError(
            f"warehouse {text!r} holds {' '.join(odd)}, which readers of URIs take for something else: choose another folder"
        )
    return f"{'file' if is_file else 's3'}://{rest}".rstrip("/")


def local_path(warehouse: str) -> str | None:
    """Return the absolute path of a warehouse's `file://` URI; None for one on S3."""
    return warehouse.removeprefix("file://") if warehouse.startswith("file://") else None
