"""Read a JPEG strictly: any warning of libjpeg-turbo means that data are missing or damaged.

simplejpeg raises the first warning; Pillow, which reads with the same library, keeps all of them to itself. A large picture is
read at a smaller scale, which saves most of the time: all of its data are still read, so its warnings are the same.
"""

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.exif import orientation_of
from orchard_jobs.images.formats.jpeg_markers import LOSSLESS, Markers, read_markers
from orchard_jobs.images.formats.picture import Fault, Limits, Picture

_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}
# libjpeg-turbo's words about what is whole, but beyond it.
_UNSUPPORTED = re.compile(r"could not determine|unsupported|not supported|maximum supported|bogus sampling", re.IGNORECASE)
# What it says of rare sampling, it says of any header that it cannot read, too.
_UNKNOWN_SAMPLING = re.compile("could not determine", re.IGNORECASE)


def read_jpeg(content: bytes, limits: Limits) -> Picture:
    """Return the picture. CMYK is taken to be of Adobe's (inverted) polarity."""
    markers = read_markers(content, limits)
    reduction = _reduction(markers, limits)
    image = _image(read_samples(markers, reduction))
    return Picture(image, orientation_of(markers.exif), markers.profile, reduction, (markers.width, markers.height))


def _reduction(markers: Markers, limits: Limits) -> int:
    if markers.marker == LOSSLESS:
        # libjpeg-turbo 3.1 has no scales for it, and does not say so: it crashes.
        return 1
    # Of coarser colours the library takes a larger scale than of the rest, but only where they are coarser both ways.
    return limits.reduction(markers.width // markers.unevenness, markers.height // markers.unevenness)


def _image(samples: NDArray[np.uint8]) -> Image.Image:
    if samples.shape[2] == 1:
        return Image.fromarray(samples[..., 0])
    if samples.shape[2] == 3:
        return Image.fromarray(samples)
    np.invert(samples, out=samples)
    return Image.frombuffer("CMYK", (samples.shape[1], samples.shape[0]), samples, "raw", "CMYK", 0, 1)


def read_samples(markers: Markers, reduction: int = 1) -> NDArray[np.uint8]:
    """Return the samples [height, width, 1, 3 or 4] as they are stored, YCbCr and YCCK as RGB and CMYK."""
    samples = _strictly(markers, markers.content, reduction)
    data, end = markers.content[:-2], markers.content[-2:]
    if data.endswith(b"\0") and not data.endswith(b"\xff\0") and _is_read(markers, data[:-1] + end, reduction):
        # libjpeg warns of data that nothing needs only from the sixth byte on.
        raise Fault(Reason.TRUNCATED, "JPEG: zero bytes stand after the last pixel, or in place of data")
    return samples


def _is_read(markers: Markers, content: bytes, reduction: int) -> bool:
    try:
        _strictly(markers, content, reduction)
    except Fault:
        return False
    return True


def _strictly(markers: Markers, content: bytes, reduction: int) -> NDArray[np.uint8]:
    # The library takes the smallest of its scales that is no smaller than this.
    least = {} if reduction == 1 else {"min_height": -(-markers.height // reduction), "min_width": -(-markers.width // reduction)}
    try:
        samples: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, _COLOURS[len(markers.components)], strict=True, **least)
    except ValueError as error:
        words = str(error).partition("(): ")[2] or str(error)
        if "memory" in words.lower():
            raise MemoryError(words) from error
        if markers.has_usual_sampling and _UNKNOWN_SAMPLING.search(words):
            raise Fault(Reason.TRUNCATED, "JPEG: the header is damaged") from error
        raise Fault(Reason.UNSUPPORTED if _UNSUPPORTED.search(words) else Reason.TRUNCATED, f"JPEG: {words}") from error
    return samples
