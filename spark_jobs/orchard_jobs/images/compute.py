"""The pipeline of one worker task: a source's images to features or quarantine outcomes. No Spark, no storage.

Fetching and decoding are ahead of the backbone, in a thread of their own; what decodes is a process that an image may kill.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchard_jobs.contract.manifest import Entry
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.errors import JobError
from orchard_jobs.images.ahead import ahead
from orchard_jobs.images.decode import Decoded, Rejected
from orchard_jobs.images.guarded import decode
from orchard_jobs.images.loaded_backbone import LoadedBackbone
from orchard_jobs.images.sources import Fetched, Unread
from orchard_jobs.images.vectors import squares_a_call, vectors_of

# Entries held back for a batch that fills slowly because they are bad or duplicates: the bound on what is buffered.
_HELD = 64
_DECODED_AHEAD = 32


@dataclass(frozen=True)
class Good:
    """An image with features.

    Attributes:
        entry: the manifest's entry.
        content_sha256: 64 hex digits, of the file's bytes.
        width: pixels after EXIF rotation.
        height: likewise.
        features: float32 [dimension].
        is_backbone_run: whether this image was put through the backbone; False for a duplicate of one that was.
    """

    entry: Entry
    content_sha256: str
    width: int
    height: int
    features: NDArray[np.float32]
    is_backbone_run: bool


@dataclass(frozen=True)
class Bad:
    """A quarantined image; `content_sha256` is None when it was never read."""

    entry: Entry
    reason: Reason
    message: str
    content_sha256: str | None


@dataclass(frozen=True)
class Known:
    """An image whose content has features elsewhere: it was read, and neither decoded nor run."""

    entry: Entry
    content_sha256: str


ImageResult = Good | Bad | Known


@dataclass(frozen=True)
class InputRules:
    """What is decided about an image before the backbone.

    Attributes:
        pixel_limit: width x height above which it is quarantined.
        known: SHA-256 in hex of the contents that have features elsewhere.
    """

    pixel_limit: int
    known: frozenset[str] = frozenset()


@dataclass
class Tally:
    """What a task counts for the job's report; tallies of many tasks add up.

    Attributes:
        images: outcomes yielded.
        network_runs: squares put through the backbone, one for each view of an image.
        busy_seconds: the backbone at work.
        waiting_seconds: the backbone waiting for the next decoded image.
    """

    images: int = 0
    network_runs: int = 0
    busy_seconds: float = 0.0
    waiting_seconds: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.images + other.images,
            self.network_runs + other.network_runs,
            self.busy_seconds + other.busy_seconds,
            self.waiting_seconds + other.waiting_seconds,
        )

    def add_wait(self, seconds: float) -> None:
        """Add what the backbone waited for one image."""
        self.waiting_seconds += seconds


def compute(
    source: Iterable[Fetched],
    backbone: LoadedBackbone,
    rules: InputRules,
    tally: Tally,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Generator[ImageResult, None, None]:
    """Yield one outcome for each entry, in the source's order, at most 64 entries behind it.

    Entries of one `group` must be given together. Among them each content is decoded and run once: a duplicate of a good image
    shares its features, a duplicate of a bad one its reason. A known content is neither decoded nor run.

    Args:
        source: entries with their bytes; iterated in a thread of its own, and closed there.
        backbone: the loaded backbone.
        rules: what is decided before the backbone.
        tally: added to as the work goes on.
        on_progress: called with the number of outcomes so far, after each; it should be cheap.

    Raises:
        JobError: the backbone failed on a batch. What the source raises is passed on.
    """
    batch = _InputBatch(backbone)
    with closing(ahead(_decode_all(source, rules, backbone), _DECODED_AHEAD, tally.add_wait)) as images:
        for image in images:
            batch.hold(image)
            if batch.is_full:
                yield from _counted(batch.finish(tally), tally, on_progress)
        yield from _counted(batch.finish(tally), tally, on_progress)


def _counted(outcomes: list[ImageResult], tally: Tally, on_progress: Callable[[int], None]) -> Iterator[ImageResult]:
    for outcome in outcomes:
        tally.images += 1
        on_progress(tally.images)
        yield outcome


@dataclass(frozen=True)
class _Image:
    """An entry on its way; `found` is None where nothing was decoded: the content is known, or its group has had it before."""

    entry: Entry
    content_sha256: str | None
    found: Decoded | Rejected | None
    is_known: bool = False


def _decode_all(source: Iterable[Fetched], rules: InputRules, backbone: LoadedBackbone) -> Generator[_Image, None, None]:
    group: str | None = None
    seen: set[str] = set()
    with _closed_at_last(source):
        for entry, content in source:
            if entry.group != group:
                group, seen = entry.group, set()
            if isinstance(content, Unread):
                yield _Image(entry, None, Rejected(content.reason, content.message))
                continue
            content_sha256 = hashlib.sha256(content).hexdigest()
            if content_sha256 in rules.known:
                yield _Image(entry, content_sha256, None, is_known=True)
                continue
            is_new = content_sha256 not in seen
            seen.add(content_sha256)
            found = decode(content, rules.pixel_limit, backbone.input_pixels, backbone.views) if is_new else None
            yield _Image(entry, content_sha256, found)


def _closed_at_last(source: Any) -> AbstractContextManager[Any]:
    return closing(source) if hasattr(source, "close") else nullcontext(source)


@dataclass
class _InputBatch:
    """Entries in order until enough of them need the backbone; remembers the contents of the last entry's group."""

    backbone: LoadedBackbone
    held: list[_Image] = field(default_factory=list)
    squares: list[NDArray[np.uint8]] = field(default_factory=list)  # an image's views each
    group: str | None = None
    firsts: dict[str, ImageResult] = field(default_factory=dict)

    def hold(self, image: _Image) -> None:
        self.held.append(image)
        if isinstance(image.found, Decoded):
            self.squares.append(image.found.squares)

    @property
    def is_full(self) -> bool:
        ready = sum(map(len, self.squares))
        return ready == 0 or ready >= squares_a_call(self.backbone) or len(self.held) >= _HELD

    def finish(self, tally: Tally) -> list[ImageResult]:
        """Run what is held and return its outcomes in order."""
        vectors = iter(self._run(tally)) if self.squares else iter(())
        outcomes = [self._outcome(image, vectors) for image in self.held]
        self.held, self.squares = [], []
        return outcomes

    def _run(self, tally: Tally) -> NDArray[np.float32]:
        squares = np.stack(self.squares)
        started = time.perf_counter()
        try:
            vectors = vectors_of(self.backbone, squares)
        except JobError:
            raise
        except Exception as error:
            raise JobError(
                f"the backbone failed on {len(squares)} images, the first held is {self.held[0].entry.image_uri!r}: {error}: "
                "check the worker's memory; the images themselves had decoded"
            ) from error
        tally.busy_seconds += time.perf_counter() - started
        tally.network_runs += squares.shape[0] * squares.shape[1]
        return vectors

    def _outcome(self, image: _Image, vectors: Iterator[NDArray[np.float32]]) -> ImageResult:
        if image.entry.group != self.group:
            self.group, self.firsts = image.entry.group, {}
        outcome = self._first(image, vectors)
        if image.content_sha256 is not None:
            self.firsts.setdefault(image.content_sha256, outcome)
        return outcome

    def _first(self, image: _Image, vectors: Iterator[NDArray[np.float32]]) -> ImageResult:
        match image.found:
            case Decoded(_, width, height):
                assert image.content_sha256 is not None
                # A copy: a view would keep its whole batch alive for as long as the group is remembered.
                return Good(image.entry, image.content_sha256, width, height, next(vectors).copy(), True)
            case Rejected(reason, message):
                return Bad(image.entry, reason, message, image.content_sha256)
            case None:
                assert image.content_sha256 is not None
                if image.is_known:
                    return Known(image.entry, image.content_sha256)
                return _of_duplicate(image.entry, self.firsts[image.content_sha256])


def _of_duplicate(entry: Entry, first: ImageResult) -> ImageResult:
    return replace(first, entry=entry, is_backbone_run=False) if isinstance(first, Good) else replace(first, entry=entry)
