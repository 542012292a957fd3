"""How a model did on a batch version: what a PCA model keeps of its variance, and how right a classifier is.

A classifier's counts are by true and predicted class. Every figure follows from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Captured:
    """How much of one batch's variance one model keeps: kept / total, both sums of squares about the batch's own mean.

    `share` is None for a batch without variance (one image, or all alike).
    """

    model_id: str
    batch_id: str
    manifest_digest: str
    n: int
    total: float
    kept: float

    @property
    def share(self) -> float | None:
        """Kept / total."""
        return self.kept / self.total if self.total > 0 else None


@dataclass(frozen=True)
class Cell:
    """The rows of one true class that got one prediction.

    Attributes:
        truth: the class that the label means; None where there is no label, or its classifier has no class for it.
        predicted: the likeliest class.
        is_seen: whether the classifier may have been fitted on the image.
        rows: how many.
        among_three: of them, whose true class is among the likeliest three.
        known: of them, that are near enough to their predicted class.
        score: the sum of the calibrated probabilities of the predicted class.
    """

    truth: str | None
    predicted: str
    is_seen: bool
    rows: int
    among_three: int
    known: int
    score: float


@dataclass(frozen=True)
class Evaluation:
    """What a classifier said of one batch version, by true and predicted class."""

    model_id: str
    batch_id: str
    manifest_digest: str
    cells: tuple[Cell, ...]

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "Evaluation":
        """Return the evaluation of what `dataclasses.asdict` made of it, and JSON of that."""
        return cls(**{**fields, "cells": tuple(Cell(**cell) for cell in fields["cells"])})

    @property
    def rows(self) -> int:
        """Rows of the batch version."""
        return sum(cell.rows for cell in self.cells)

    @property
    def unseen(self) -> tuple[Cell, ...]:
        """The cells of labelled images that the classifier has never seen: a fair test."""
        return self._where(lambda cell: cell.truth is not None and not cell.is_seen)

    @property
    def seen(self) -> tuple[Cell, ...]:
        """The cells of labelled images that the classifier may have been fitted on."""
        return self._where(lambda cell: cell.truth is not None and cell.is_seen)

    @property
    def unlabelled(self) -> tuple[Cell, ...]:
        """The cells of images without a class."""
        return self._where(lambda cell: cell.truth is None)

    def _where(self, is_wanted: Callable[[Cell], bool]) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if is_wanted(cell))


def right_in(cells: tuple[Cell, ...]) -> int:
    """Return how many rows of some cells got their own class."""
    return sum(cell.rows for cell in cells if cell.predicted == cell.truth)


def mean_score(cells: tuple[Cell, ...]) -> float | None:
    """Return the mean probability of the predicted class: how many are expected to be right. None without rows."""
    rows = sum(cell.rows for cell in cells)
    return sum(cell.score for cell in cells) / rows if rows else None


def merge_cells(cells: list[Cell]) -> tuple[Cell, ...]:
    """Return one cell for each true class, predicted class and `is_seen`, sorted."""
    found: dict[tuple[bool, str, str, bool], Cell] = {}
    for cell in cells:
        key = (cell.truth is None, cell.truth or "", cell.predicted, cell.is_seen)
        held = found.get(key)
        found[key] = _added(held, cell) if held else cell
    return tuple(found[key] for key in sorted(found))


def _added(a: Cell, b: Cell) -> Cell:
    counts = (a.rows + b.rows, a.among_three + b.among_three, a.known + b.known)
    return Cell(a.truth, a.predicted, a.is_seen, *counts, a.score + b.score)
