"""Match the staged rows of features and quarantine with the manifest's entries, key by key.

Keys, contents and vectors are held as BLAKE2b digests of 16 bytes, not as strings. That takes about 300 bytes for each image.
Even among a thousand million images, a collision has a probability below 2^-64. Examples name the row being read, so no string
needs to be kept.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from orchard_jobs.audit.file_checks import Rows
from orchard_jobs.audit.row_checks import Vectors
from orchard_jobs.audit.verdict import Findings
from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_jobs.contract.manifest import Entry

MATCHING_CHECKS = {
    "unique_uri": "an image_uri occurs once in features and quarantine together",
    "keys": "the rows are those of the manifest's entries: none is lost, none is invented",
    "listing": "etag, size_bytes, label, and the content of reused images, are the manifest's",
    "actions": "a kept or reused row is in the table from which it was to be copied",
    "computed_in": "this manifest's job made the vectors of the images to compute, save those of known content, and no others",
    "equal_content": "rows of equal content_sha256 and computed_in have equal features",
}
_TABLE_OF_ACTION = {"keep": FEATURES.name, "reuse": FEATURES.name, "keep_quarantined": QUARANTINE.name}
_ACTIONS = ("compute", "keep", "keep_quarantined", "reuse")


def digest_16(*values: str | int | None) -> bytes:
    """Return 16 bytes that identify some values in their order."""
    return blake2b(repr(values).encode("utf-8", "backslashreplace"), digest_size=16).digest()


class RowMatcher:
    """What the manifest expects of each key, and which rows have met it.

    Attributes:
        good: distinct listed keys with a features row.
        quarantined: distinct listed keys with a quarantine row.
        missing: distinct keys with a row that are listed no longer.
        listed: entries of the manifest that are listed.
        entries_missing: entries of the manifest that are not.
    """

    def __init__(self, manifest_digest: str) -> None:
        self._manifest_digest = manifest_digest
        self._expected: dict[bytes, bytes] = {}
        self._seen: set[bytes] = set()
        self._computed: set[bytes] = set()
        self._known: set[bytes] = set()
        self._vectors: dict[bytes, bytes] = {}
        self.good = self.quarantined = self.missing = 0
        self.listed = self.entries_missing = 0

    @property
    def featurized(self) -> int:
        """Distinct contents of listed images whose vectors this manifest's job made."""
        return len(self._computed)

    def expect(self, entry: Entry) -> bool:
        """Add one entry of the manifest; return whether its key is new."""
        key = digest_16(entry.image_uri)
        is_new = key not in self._expected
        content = entry.content_sha256 if entry.action == "reuse" else None
        row = digest_16(entry.etag, entry.size_bytes, entry.label, content)
        self._expected[key] = row + bytes([_ACTIONS.index(entry.action), entry.is_missing])
        self.entries_missing += entry.is_missing
        self.listed += not entry.is_missing
        return is_new

    def expect_known(self, contents: Iterable[str]) -> None:
        """Add the contents whose vectors the job was to find, not to make."""
        self._known.update(digest_16(content) for content in contents)

    def is_missing(self, image_uri: str) -> bool:
        """Tell whether an entry of the manifest is listed no longer."""
        return self._expected.get(digest_16(image_uri), bytes(18))[17] == 1

    def see(self, rows: Rows, findings: Findings) -> None:
        """Match some rows with the manifest: `unique_uri`, `keys`, `listing`, `actions`, `computed_in`; and count."""
        names = ("image_uri", "etag", "size_bytes", "label", "content_sha256")
        columns = [rows.column(name).to_pylist() for name in names]
        computed_in = rows.values("computed_in") if rows.table is FEATURES else [None] * rows.batch.num_rows
        for uri, etag, size_bytes, label, content, origin in zip(*columns, computed_in, strict=True):
            if uri is None:
                continue
            key = digest_16(uri)
            if key in self._seen:
                findings.add("unique_uri", rows.path, f"{uri} occurs again here")
                continue
            self._seen.add(key)
            expected = self._expected.get(key)
            if expected is None:
                findings.add("keys", rows.path, f"{uri} is not in the manifest")
                continue
            action = _ACTIONS[expected[16]]
            if _TABLE_OF_ACTION.get(action, rows.table.name) != rows.table.name:
                findings.add("actions", rows.path, f"{uri}: action {action}, but the row is in {rows.table.name}")
            found = digest_16(etag, size_bytes, label, content if action == "reuse" else None)
            if None not in (etag, size_bytes) and found != expected[:16]:
                findings.add("listing", rows.path, f"{uri}: {etag=} {size_bytes=} {label=} {content=} is not the manifest's")
            if rows.table is FEATURES and content is not None and origin is not None:
                is_to_compute = action == "compute" and digest_16(content) not in self._known
                if (origin == self._manifest_digest) != is_to_compute:
                    findings.add("computed_in", rows.path, f"{uri}: action {action}, {content=}, but computed in {origin}")
            self._count(rows.table.name, bool(expected[17]), content, origin)

    def see_vectors(self, rows: Rows, vectors: Vectors, findings: Findings) -> None:
        """Judge `equal_content`.

        Equal content that was computed by different jobs is not compared: library versions and CPUs differ by 1e-4.
        """
        contents, origins = rows.values("content_sha256"), rows.values("computed_in")
        for i, vector in zip(vectors.rows, vectors.matrix, strict=True):
            found = blake2b(vector.tobytes(), digest_size=16).digest()
            if self._vectors.setdefault(digest_16(contents[i], origins[i]), found) != found:
                findings.add("equal_content", rows.path, f"{rows.names[i]}: another row of {contents[i]} has other features")

    def lost(self, entries: Iterable[Entry]) -> Iterator[str]:
        """Yield an example for each entry that has no row."""
        if self._expected.keys() <= self._seen:
            return
        for entry in entries:
            if digest_16(entry.image_uri) not in self._seen:
                yield f"{entry.image_uri} has no row (action {entry.action})"

    def _count(self, table: str, is_missing: bool, content: str | None, computed_in: str | None) -> None:
        if is_missing:
            self.missing += 1
        elif table == QUARANTINE.name:
            self.quarantined += 1
        else:
            self.good += 1
            if computed_in == self._manifest_digest:
                self._computed.add(digest_16(content))
