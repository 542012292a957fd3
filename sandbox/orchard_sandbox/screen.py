"""The live display and the final table: on a terminal a block that is redrawn, elsewhere a line when something changes."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from orchard_sandbox.published import PublishedBatch
from orchard_sandbox.runs import Outcome, RunView

_QUIET_SECONDS = 10.0
_BETWEEN = ("(scheduled)", "(queued)")


@dataclass
class Screen:
    """Shows runs while they go on.

    Attributes:
        stream: where to.
        clock: monotonic seconds.
    """

    stream: TextIO = field(default_factory=lambda: sys.stdout)
    clock: Callable[[], float] = time.monotonic
    _drawn: int = 0
    _said: dict[str, tuple[str, float]] = field(default_factory=dict)
    _first: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)

    def show(self, views: Sequence[RunView]) -> None:
        """Bring the display up to date."""
        if self.stream.isatty():
            self._redraw([self._line(view) for view in views], views)
        else:
            for view in views:
                self._say(view)
        self.stream.flush()

    def _line(self, view: RunView) -> str:
        parts = [f"{view.batch:<12} {view.state:<8} {view.task}"]
        if view.count and not view.is_over:
            parts.append(f"{view.count.done} of {view.count.total} images")
            rate = self._rate(view)
            parts += [f"{rate:.1f} images/s"] if rate else []
        return "  ".join(parts)

    def _rate(self, view: RunView) -> float | None:
        """Return images a second since the task's first count."""
        assert view.count is not None
        now = self.clock()
        begin, done = self._first.setdefault((view.batch, view.task), (now, view.count.done))
        return (view.count.done - done) / (now - begin) if now > begin and view.count.done > done else None

    def _redraw(self, lines: list[str], views: Sequence[RunView]) -> None:
        columns, rows = shutil.get_terminal_size()
        if len(lines) > rows - 2:
            over = sum(view.is_over for view in views)
            shown = [line for line, view in zip(lines, views, strict=True) if not view.is_over][: rows - 3]
            lines = [*shown, f"{over} of {len(views)} batches done"]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self.stream.write(up + "".join(f"\x1b[2K{line[: columns - 1]}\n" for line in lines) + "\x1b[J")
        self._drawn = len(lines)

    def _say(self, view: RunView) -> None:
        state, now = f"{view.state} {view.task}", self.clock()
        said, at = self._said.get(view.batch, ("", 0.0))
        is_counting = view.count is not None and not view.is_over and now - at >= _QUIET_SECONDS
        is_between_tasks = view.state == "running" and (not view.task or view.task.endswith(_BETWEEN))
        if (state != said and not is_between_tasks) or is_counting:
            self.stream.write(self._line(view).rstrip() + "\n")
            self._said[view.batch] = (state, now)


@dataclass(frozen=True)
class BatchResult:
    """One row of the final table."""

    batch: str
    outcome: Outcome
    seconds: float | None
    published: PublishedBatch | None


def format_table(results: Sequence[BatchResult]) -> str:
    """Return the final table; a `-` stands where nothing is published."""
    head = ("batch", "listed", "featurized", "reused", "quarantined", "captured", "seconds", "")
    rows = [head, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(_aligned(cell, width, i) for i, (cell, width) in enumerate(zip(r, widths, strict=True))).rstrip() for r in rows
    )


def _row(result: BatchResult) -> tuple[str, ...]:
    numbers = result.published
    counts = (numbers.listed, numbers.featurized, numbers.reused, numbers.quarantined) if numbers else ("-",) * 4
    share = f"{numbers.captured:.1%}" if numbers and numbers.captured is not None else "-"
    seconds = f"{result.seconds:.0f}" if result.seconds is not None else "-"
    return (result.batch, *(str(count) for count in counts), share, seconds, result.outcome)


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in (0, 7) else cell.rjust(width)
