"""The manifest: a frozen, sorted, content-addressed list of one whole batch, and what is to be done with each image.

A manifest is a small JSON head and gzip JSON-lines parts of 10,000 entries. Its digest covers the head, and the head names each
part by its SHA-256, so the digest covers everything. No two batch versions share a digest, because the head holds the version's
number.
"""

import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.digests import canonical_json, digest_of

ENTRIES_PER_PART = 10_000
OBJECT_LIMIT = 256_000_000
MD5 = "[0-9a-f]{32}"
Action = Literal["compute", "keep", "keep_quarantined", "reuse"]


@dataclass(frozen=True)
class Entry:
    """One image of the batch, or one missing image whose row stays.

    Attributes:
        image_uri: `s3://bucket/` + the raw key.
        etag: the ETag without quotes.
        size_bytes: as listed.
        uploaded_at: ISO 8601 in UTC, as first seen for this (key, ETag).
        label: the second-to-last path element below the batch, or None.
        action: `compute` reads the image; `keep` and `keep_quarantined` copy the published row of this (key, ETag);
            `reuse` copies the vector of `content_sha256` from another published row.
        group: images that may have equal content share a group, so that one worker task sees them all. Empty unless
            the action is `compute`.
        content_sha256: the known content, only for `reuse`.
        is_missing: published before, no longer listed; its row is kept.
    """

    image_uri: str
    etag: str
    size_bytes: int
    uploaded_at: str
    label: str | None
    action: Action
    group: str = ""
    content_sha256: str | None = None
    is_missing: bool = False


@dataclass(frozen=True)
class Part:
    """One file of entries: its name in the manifest's folder, the SHA-256 of its text and the number of its lines."""

    name: str
    sha256: str
    entries: int


@dataclass(frozen=True)
class ModelReference:
    """A fitted model as a job reads it: its id, its file, relative to the warehouse, and its number of components or classes."""

    model_id: str
    path: str
    k: int


@dataclass(frozen=True)
class ManifestHead:
    """What the manifest's digest covers.

    Attributes:
        batch_id: the partition key.
        backbone: the whole definition, so that a job needs nothing else to load it.
        number: the batch version's number: 1 + the highest that any table holds for the batch.
        model: the PCA model that `reduce` uses, frozen with the batch; None when there is none yet.
        pixel_limit: width x height above which an image is quarantined unread.
        listed: objects under the batch, entries that are missing apart.
        missing: published before, no longer listed.
        actions: entries by action, missing ones among them.
        features_files: published files, relative to the warehouse, that hold every row to keep.
        quarantine_files: published files that hold every quarantine row to keep.
        parts: the files of entries, in order.
        missing_quarantined: those of the missing whose kept row is a quarantine row.
        vector_files: files, of any version of any batch, that hold the vectors to reuse.
        known: the file of contents whose vector stands in `vector_files`, where only an image's bytes can tell that it is one
            of them; None when there are none.
        object_limit: bytes, as listed, above which an image is quarantined and not fetched. At its default it is in no text and
            no digest, so that they are those of earlier releases.
        reads_heic: whether the extra `heif` was installed beside Airflow, and so, it is taken, where the jobs run. Where it
            was, it is in no text and no digest.
        unlabelled: labels that mean no label, sorted. While there are none, they are in no text and no digest.
        classifier: the classifier that `reduce` predicts with, frozen with the batch; None when there is none yet, and then in no
            text and no digest.
    """

    batch_id: str
    backbone: Backbone
    number: int
    model: ModelReference | None
    pixel_limit: int
    listed: int
    missing: int
    actions: dict[str, int]
    features_files: tuple[str, ...]
    quarantine_files: tuple[str, ...]
    parts: tuple[Part, ...]
    missing_quarantined: int = 0
    vector_files: tuple[str, ...] = ()
    known: Part | None = None
    object_limit: int = OBJECT_LIMIT
    reads_heic: bool = True
    unlabelled: tuple[str, ...] = ()
    classifier: ModelReference | None = None

    @cached_property
    def digest(self) -> str:
        """The manifest's name."""
        return digest_of(self._fields())

    @property
    def models(self) -> tuple[ModelReference, ...]:
        """The models that `reduce` uses: of each kind the current one, where there is one."""
        return tuple(one for one in (self.model, self.classifier) if one is not None)

    @property
    def missing_good(self) -> int:
        """The missing images whose kept row is a features row."""
        return self.missing - self.missing_quarantined

    def to_json(self) -> str:
        """Return the head's text."""
        return canonical_json(self._fields())

    def _fields(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.object_limit == OBJECT_LIMIT:
            del fields["object_limit"]
        if self.reads_heic:
            del fields["reads_heic"]
        if not self.unlabelled:
            del fields["unlabelled"]
        if self.classifier is None:
            del fields["classifier"]
        return fields

    @classmethod
    def from_json(cls, text: str | bytes) -> "ManifestHead":
        """Return the head of a text that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        fields["backbone"] = Backbone(**fields["backbone"])
        for name in ("model", "classifier"):
            fields[name] = ModelReference(**fields[name]) if fields.get(name) else None
        fields["parts"] = tuple(Part(**part) for part in fields["parts"])
        fields["known"] = Part(**fields["known"]) if fields.get("known") else None
        for name in ("features_files", "quarantine_files", "vector_files", "unlabelled"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)


def write_parts(entries: Iterable[Entry]) -> Iterator[tuple[Part, bytes]]:
    """Yield (part, gzip bytes) for entries in their order; equal entries give equal bytes.

    Memory holds one part at a time. The gzip header has no time stamp and no name.
    """
    lines: list[str] = []
    number = 0
    for entry in entries:
        lines.append(canonical_json(vars(entry)))
        if len(lines) == ENTRIES_PER_PART:
            yield _part(number, lines)
            number, lines = number + 1, []
    if lines:
        yield _part(number, lines)


def _part(number: int, lines: list[str]) -> tuple[Part, bytes]:
    return _packed(f"part-{number:05d}.jsonl.gz", lines)


def _packed(name: str, lines: list[str]) -> tuple[Part, bytes]:
    text = ("\n".join(lines) + "\n").encode()
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=6) as file:
        file.write(text)
    return Part(name, hashlib.sha256(text).hexdigest(), len(lines)), packed.getvalue()


def write_entries(entries: Iterable[Entry]) -> bytes:
    """Return entries as gzip bytes that `read_part` reads."""
    return _packed("", [canonical_json(vars(entry)) for entry in entries])[1]


def write_known(contents: Iterable[str]) -> tuple[Part, bytes]:
    """Return the file of known contents (SHA-256 in hex) and its gzip bytes; the order of the contents does not matter."""
    return _packed("known.txt.gz", sorted(set(contents)))


def read_known(packed: bytes) -> frozenset[str]:
    """Return the contents of a file that `write_known` wrote."""
    return frozenset(gzip.decompress(packed).decode().split())


def read_part(packed: bytes) -> Iterator[Entry]:
    """Yield the entries of one part's gzip bytes."""
    # Not splitlines: JSON leaves U+0085 and U+2028 as they are, and a key may hold them.
    for line in gzip.decompress(packed).decode().removesuffix("\n").split("\n"):
        yield Entry(**json.loads(line))


def is_md5(etag: str) -> bool:
    """Tell whether an ETag has the form of an MD5, so that equal (ETag, size) stands for equal content.

    Objects encrypted by SSE-KMS or SSE-C have ETags of this form that are drawn for each upload: what differs is not equal in
    them either, but equal content goes unnoticed.
    """
    return re.fullmatch(MD5, etag) is not None
