"""Views: the parts of a picture that go through a backbone, each filling its square; the vectors of all are averaged."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]

_WHOLE, _CENTRE = "whole", re.compile(r"centre:(0\.\d{1,4}|1)")
_SMALLEST = 0.1
_WANTED = f"`{_WHOLE}`, `centre:0.875`, or several with commas between; a share is {_SMALLEST} to 1, with at most 4 decimals"


@dataclass(frozen=True)
class View:
    """One part of a picture.

    Attributes:
        share: side of the centred square, as a share of the picture's short side; None for the whole picture, whose sides are
            scaled each by its own factor.
    """

    share: float | None = None

    def __str__(self) -> str:
        return _WHOLE if self.share is None else f"centre:{self.share:g}"

    def within(self, box: Box) -> Box:
        """Return the part that the view is of a picture, which fills (left, top, right, bottom) in pixels."""
        if self.share is None:
            return box
        left, top, right, bottom = box
        half = self.share * min(right - left, bottom - top) / 2
        x, y = (left + right) / 2, (top + bottom) / 2
        return x - half, y - half, x + half, y + half


Views = tuple[View, ...]
WHOLE: Views = (View(),)


def parse_views(text: str) -> Views:
    """Return the views of a text such as `whole`, `centre:0.875` or `centre:0.6,centre:0.8`, the whole first, then by size.

    Raises:
        ValueError: the text has another form, or a view stands there twice.
    """
    views = [_parse_view(word.strip()) for word in text.split(",")]
    if len(set(views)) < len(views):
        raise ValueError("a view stands there twice: name each once")
    return tuple(sorted(views, key=lambda view: view.share or 0.0))


def _parse_view(word: str) -> View:
    if word == _WHOLE:
        return View()
    match = _CENTRE.fullmatch(word)
    if match is None or float(match[1]) < _SMALLEST:
        raise ValueError(f"{word!r} is no view: give {_WANTED}")
    return View(float(match[1]))


def text_of(views: Sequence[View]) -> str:
    """Return the text that `parse_views` reads: equal views have equal texts."""
    return ",".join(map(str, views))


def side_of_whole(views: Sequence[View], input_pixels: int) -> int:
    """Return how long a picture's short side must be, in pixels, for its smallest view to have `input_pixels` of its own."""
    return math.ceil(input_pixels / min(view.share or 1.0 for view in views))
