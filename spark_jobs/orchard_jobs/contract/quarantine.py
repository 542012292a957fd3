"""Why an image was set aside: the reason codes, what each means and what to do."""

from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """A quarantine row's `reason`. The row's `message` holds the decoder's or the store's own words."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not an image"
    TRUNCATED = "truncated"
    UNSUPPORTED = "unsupported mode or format"
    OVER_OBJECT_LIMIT = "over the size limit"
    OVER_PIXEL_LIMIT = "over the pixel limit"
    TOO_COSTLY = "too costly to decode"
    KILLED_DECODER = "killed its decoder"
    VANISHED = "vanished"


class Explanation(NamedTuple):
    """What docs/reference/quarantine.md says of a reason: what it means and what to do."""

    meaning: str
    advice: str


EXPLANATIONS = {
    Reason.EMPTY: Explanation(
        "The object has no bytes.",
        "Upload the file again. The next run of the batch computes it, because its ETag differs.",
    ),
    Reason.NOT_AN_IMAGE: Explanation(
        "The file is not an image: text, even if it begins like an image, a Git LFS pointer, a PDF.",
        "Remove it from the batch, or leave it there. It costs nothing more.",
    ),
    Reason.TRUNCATED: Explanation(
        "The format is known, but the bytes end or break before the picture is whole. "
        "A correct end marker does not make it whole.",
        "Upload the file again. The next run of the batch computes it, because its ETag differs.",
    ),
    Reason.UNSUPPORTED: Explanation(
        "The file is whole, but its format, or the way it stores its pixels, is not read. The message names it.",
        "Convert the file to JPEG or PNG, and upload that. For HEIC, the message may say that the jobs' environment lacks "
        "the extra `heif` of `orchard-jobs`: install it.",
    ),
    Reason.OVER_OBJECT_LIMIT: Explanation(
        "The listing says that the object has more bytes than `ORCHARD_OBJECT_LIMIT`. It was not fetched.",
        "Raise `ORCHARD_OBJECT_LIMIT` if memory allows, and start the batch again. "
        "A lower limit affects only images that are still to be computed.",
    ),
    Reason.OVER_PIXEL_LIMIT: Explanation(
        "Width x height is above `ORCHARD_PIXEL_LIMIT`.",
        "Raise `ORCHARD_PIXEL_LIMIT` if memory allows, and start the batch again. "
        "A lower limit affects only images that are still to be computed.",
    ),
    Reason.TOO_COSTLY: Explanation(
        "Decoding it takes more memory or time than one image may have, although its pixels are within the limit: "
        "a TIFF with one huge strip or tile, a JPEG of hundreds of scans.",
        "Save it in another form (baseline JPEG, a TIFF of small tiles) and upload it again.",
    ),
    Reason.KILLED_DECODER: Explanation(
        "It ended two decoders, one after the other: by a crash in a library, a hang, or more memory than the worker had.",
        "Save it in another form and upload it again. If the message says SIGKILL, give workers more memory first.",
    ),
    Reason.VANISHED: Explanation(
        "The object was deleted, or changed after it was listed.",
        "Start the batch again. The next run computes it if it is still there, and drops the row if it is not.",
    ),
}
