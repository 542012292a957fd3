"""The live display and the final table: a redrawn block on a terminal, elsewhere one line for each change."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group
from rich.control import Control
from rich.live_render import LiveRender
from rich.progress_bar import ProgressBar
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from orchard_sandbox.stack.published import PublishedBatch
from orchard_sandbox.stack.runs import RunResult, RunView

_QUIET_SECONDS = 10.0
_BETWEEN = ("(scheduled)", "(queued)")
_STYLES = {"running": "cyan", "success": "green", "published": "green", "failed": "bold red"}


@dataclass(frozen=True)
class BatchResult:
    """One row of the final table."""

    batch: str
    outcome: RunResult
    seconds: float | None
    published: PublishedBatch | None


@dataclass
class Screen:
    """Shows runs in progress and their results; the clock gives monotonic seconds."""

    stream: TextIO = field(default_factory=lambda: sys.stdout)
    clock: Callable[[], float] = time.monotonic
    _said: dict[str, tuple[str, float]] = field(default_factory=dict)
    _first: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    _block: LiveRender = field(default_factory=lambda: LiveRender(""))

    def __post_init__(self) -> None:
        # Without a terminal no line is broken.
        self._console = Console(file=self.stream, highlight=False, width=None if self.stream.isatty() else 1000)

    def show(self, views: Sequence[RunView]) -> None:
        """Update the display."""
        if self.stream.isatty():
            self._redraw(views)
        else:
            for view in views:
                self._say(view)
        self.stream.flush()

    def show_results(self, results: Sequence[BatchResult]) -> None:
        """Show the final table; a `-` stands where nothing is published."""
        table = Table(box=None, pad_edge=False, padding=(0, 2 if self._console.width > 90 else 1, 0, 0))
        table.add_column("batch")
        # Without a classifier there is nothing to tell.
        accuracy = ["accuracy"] if any(one.published and one.published.accuracy for one in results) else []
        for name in ("listed", "featurized", "reused", "quarantined", "captured", *accuracy, "seconds"):
            table.add_column(name, justify="right")
        table.add_column("")
        for result in results:
            numbers = result.published
            counts = (numbers.listed, numbers.featurized, numbers.reused, numbers.quarantined) if numbers else ("-",) * 4
            share = f"{numbers.captured:.1%}" if numbers and numbers.captured is not None else "-"
            right = [numbers.accuracy or "-" if numbers else "-"] * len(accuracy)
            seconds = f"{result.seconds:.0f}" if result.seconds is not None else "-"
            outcome = Text(result.outcome, _STYLES.get(result.outcome, ""))
            table.add_row(result.batch, *(str(count) for count in counts), share, *right, seconds, outcome)
        self._console.print(table)

    def _counted(self, view: RunView) -> list[str]:
        """Return a running count in words, with the images a second since the task's first count."""
        if not view.count or view.is_over:
            return []
        now, done = self.clock(), view.count.done
        begin, first = self._first.setdefault((view.batch, view.task), (now, done))
        rate = [f"{(done - first) / (now - begin):.1f} images/s"] if now > begin and done > first else []
        return [f"{done} of {view.count.total} images", *rate]

    def _redraw(self, views: Sequence[RunView]) -> None:
        block, rows = Table.grid(padding=(0, 2, 0, 0)), self._console.height
        for width in (12, 8, None, None, None):
            block.add_column(min_width=width, no_wrap=True, overflow="ellipsis")
        over, shown = [view for view in views if view.is_over], views
        if len(views) > rows - 2:
            shown = [view for view in views if not view.is_over][: rows - 3]
        for view in shown:
            bar = ProgressBar(view.count.total, view.count.done, width=12) if view.count and not view.is_over else ""
            state = Text(view.state, _STYLES.get(view.state, ""))
            block.add_row(view.batch, state, Text(view.task, _STYLES.get(view.task, "")), bar, "  ".join(self._counted(view)))
        summary = [f"{len(over)} of {len(views)} runs done"] if len(shown) < len(views) else []
        if self._block.renderable:
            self._console.control(Control((ControlType.CURSOR_UP, 1)), self._block.position_cursor())
        self._block.set_renderable(Group(block, *summary))
        self._console.print(self._block)
        self._console.line()

    def _say(self, view: RunView) -> None:
        state, now = f"{view.state} {view.task}", self.clock()
        said, at = self._said.get(view.batch, ("", 0.0))
        is_counting = view.count is not None and not view.is_over and now - at >= _QUIET_SECONDS
        is_between_tasks = view.state == "running" and (not view.task or view.task.endswith(_BETWEEN))
        if (state != said and not is_between_tasks) or is_counting:
            line = "  ".join([f"{view.batch:<12} {view.state:<8} {view.task}", *self._counted(view)])
            self.stream.write(line.rstrip() + "\n")
            self._said[view.batch] = (state, now)
