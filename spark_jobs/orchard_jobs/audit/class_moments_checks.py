"""The audit of a batch's class moments: they agree with a second pass over the labelled rows of its features."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.audit.file_checks import Rows
from orchard_jobs.audit.moments_checks import ROUNDING, TOLERANCE, ColumnSums, diagonal_of
from orchard_jobs.audit.row_checks import Vectors
from orchard_jobs.audit.row_matching import digest_16
from orchard_jobs.audit.verdict import Findings

CLASS_MOMENTS_CHECK = {
    "class_moments": "there is one finite row: labels, counts, means and the diagonal of the scatter are those of the labelled "
    "rows, without missing images whose content is listed under another label",
}


class LabelSums:
    """Column sums of the square roots of features, for each label apart.

    Args:
        dimension: length of a row.
        unlabelled: labels that mean no label.
    """

    def __init__(self, dimension: int, unlabelled: tuple[str, ...]) -> None:
        self.dimension, self.unlabelled = dimension, unlabelled
        self.of_label: dict[str, ColumnSums] = {}

    def add(self, rows: Rows, vectors: Vectors, is_counted: Callable[[str, str, str | None], bool]) -> None:
        """Add the labelled rows that have a whole vector, and whose URI, content and label count."""
        identities = list(zip(rows.names, rows.values("content_sha256"), rows.values("label"), strict=True))
        places: dict[str, list[int]] = {}
        for place, row in enumerate(vectors.rows):
            uri, content, label = identities[row]
            if label is not None and label not in self.unlabelled and is_counted(uri, content or "", label):
                places.setdefault(label, []).append(place)
        for label, own in places.items():
            roots = np.sqrt(np.clip(vectors.matrix[own].astype(np.float64), 0, None))
            self.of_label.setdefault(label, ColumnSums(self.dimension)).add(roots)

    def merged(self) -> tuple[list[str], list[int], NDArray[np.float64], NDArray[np.float64]]:
        """Return labels, counts, means [l, d] and the sum of squares about each label's mean, over all labels [d]."""
        labels = sorted(self.of_label)
        sums = [self.of_label[label] for label in labels]
        means = np.array([one.mean for one in sums]).reshape(len(labels), self.dimension)
        return labels, [one.n for one in sums], means, np.sum([np.zeros(self.dimension), *(one.squares for one in sums)], axis=0)


class ListedLabels:
    """Under which labels the content of a missing image is listed, too. Holds as much as there are missing images."""

    def __init__(self, is_missing: Callable[[str], bool]) -> None:
        self._is_missing = is_missing
        self._listed: dict[bytes, set[str | None]] = {}

    def find(self, read: Callable[[], Iterable[Rows]]) -> None:
        """Read all rows twice: for the missing images' contents, then for the labels of listed rows of such a content."""
        for uri, content, _ in _identities(read()):
            if self._is_missing(uri):
                self._listed[content] = set()
        for uri, content, label in _identities(read()):
            if content in self._listed and not self._is_missing(uri):
                self._listed[content].add(label)

    def counts_missing(self, uri: str, content: str, label: str | None) -> bool:
        """Tell whether a row is that of a missing image whose content is listed under no other label."""
        return self._is_missing(uri) and not self._listed[digest_16(content)] - {label}


def _identities(chunks: Iterable[Rows]) -> Iterator[tuple[str, bytes, str | None]]:
    for rows in chunks:
        yield from zip(rows.names, map(digest_16, rows.values("content_sha256")), rows.values("label"), strict=True)


def check_class_moments(rows: Rows, sums: LabelSums, findings: Findings) -> None:
    """Judge `class_moments` against the sums of the labelled rows."""
    findings.extend("class_moments", rows.path, _faults(rows, sums))


def _faults(rows: Rows, sums: LabelSums) -> Iterator[str]:
    labels, counts, means, squares = sums.merged()
    dimension, n = sums.dimension if labels else 0, sum(counts)
    found_means, triangle = _values(rows, "means"), _values(rows, "scatter")
    if (rows.batch.num_rows, len(found_means), len(triangle)) != (1, means.size, dimension * (dimension + 1) // 2):
        yield (
            f"{rows.batch.num_rows} rows with {len(found_means)} means and {len(triangle)} values of scatter, for "
            f"{len(labels)} labels of {dimension} dimensions"
        )
        return
    for name, values in {"labels": labels, "counts": counts, "unlabelled": list(sums.unlabelled)}.items():
        if rows.column(name)[0].as_py() != values:
            yield f"{name} is {rows.column(name)[0].as_py()}, not {values}"
    spread = float(np.sqrt(squares.max(initial=0.0) / max(n, 1)))
    offset = ROUNDING * float(np.abs(means).max(initial=0.0))
    if not np.allclose(found_means, means.ravel(), rtol=TOLERANCE, atol=TOLERANCE * spread):
        yield "a mean is not that of its label's rows"
    if not np.allclose(
        diagonal_of(triangle, dimension), squares[:dimension], rtol=TOLERANCE, atol=n * (TOLERANCE * spread**2 + offset**2)
    ):
        yield "the diagonal of the scatter is not that of the labelled rows"
    if not np.isfinite(triangle).all():
        yield "a value of the scatter is NaN or infinite"


def _values(rows: Rows, name: str) -> NDArray[np.float64]:
    """Return the values of a column's lists, one after the other."""
    return np.asarray(rows.column(name).flatten().to_numpy(zero_copy_only=False), dtype=np.float64)
