"""Why an image was set aside: the documented list of reason codes."""

from enum import StrEnum


class Reason(StrEnum):
    """A quarantine row's `reason`. The row's `message` holds the decoder's or the store's own words."""

    EMPTY = "empty"
    """The object has no bytes."""
    NOT_AN_IMAGE = "not an image"
    """No decoder recognises the bytes (text, a Git LFS pointer, a PDF)."""
    TRUNCATED = "truncated"
    """A known format whose bytes end or break before the picture is whole."""
    UNSUPPORTED = "unsupported mode or format"
    """Decodes, but to pixels that have no defined conversion to RGB, or a format that the build lacks."""
    OVER_PIXEL_LIMIT = "over the pixel limit"
    """Width x height is above the limit; judged again when the limit rises."""
    VANISHED = "vanished"
    """Gone, or changed since the listing (its ETag no longer matched). Computed again by the next run."""
