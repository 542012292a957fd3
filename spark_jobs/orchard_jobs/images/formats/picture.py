"""What a reader hands on, how it says no, how much a picture may cost and how small it may be read. Knows no format."""

from dataclasses import dataclass

from PIL import Image

from orchard_jobs.contract.quarantine import Reason

# Of decoding, a pixel of the limit, on top of the file itself: the uncompressed samples and the copies made on the way to RGB.
_BYTES_A_PIXEL = 20
# A scan of a JPEG walks all samples of its components. Ten usual scans of a colour picture walk 14 samples a pixel.
_SAMPLES_A_PIXEL = 40
# Small limits still admit small pictures, however they are stored.
_LEAST_PIXELS = 10_000_000
# What reduces a large picture before the bicubic filter does leaves it so many times the square's side.
SIDES_KEPT = 3
# The largest colour profiles, of printers, take 4 MB; a larger one counts as none.
PROFILE_BYTES = 8 * 1024 * 1024
# Segments, chunks, boxes or blocks of a file. To walk over one takes a microsecond, and some take two bytes.
_MOST_PARTS = 100_000


class Fault(Exception):
    """The file gives no picture. Its words are equal for equal bytes."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_parts(count: int, what: str) -> None:
    """Raise Fault when a file has more parts than any writer makes."""
    if count > _MOST_PARTS:
        raise Fault(Reason.TOO_COSTLY, f"{what}: more than {_MOST_PARTS}")


@dataclass(frozen=True)
class Picture:
    """A decoded first frame.

    Attributes:
        image: of mode L, RGB, CMYK or LAB, or with alpha LA, La, RGBA or RGBa; 8 bits a sample.
        orientation: EXIF's, 1 to 8; 1 is upright.
        profile: the embedded colour profile; None where there is none.
        reduction: how many of the file's pixels, across and down, went into one of the image.
        whole: width and height that the file tells; None where they are the image's.
    """

    image: Image.Image
    orientation: int = 1
    profile: bytes | None = None
    reduction: int = 1
    whole: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height before any reduction."""
        return self.whole or self.image.size


@dataclass(frozen=True)
class Limits:
    """What one picture may cost and how small it may be read, judged from headers before anything is expanded.

    Attributes:
        pixels: width x height above which a picture is rejected.
        least_pixels: memory and time are granted for so many, however low the limit is.
        square: the side that the short side of the picture must have for its smallest view to fill the square; None where each
            of its pixels is wanted.
    """

    pixels: int
    least_pixels: int = _LEAST_PIXELS
    square: int | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes that decoding may take, the file apart: 1 GB at the default of 50,000,000 pixels."""
        return _BYTES_A_PIXEL * max(self.pixels, self.least_pixels)

    def reduction(self, width: int, height: int) -> int:
        """Return 8, 4 or 2 where a picture reduced by so much keeps SIDES_KEPT times the square's side both ways, otherwise 1."""
        if self.square is None:
            return 1
        wanted = SIDES_KEPT * self.square
        return next((factor for factor in (8, 4, 2) if -(-min(width, height) // factor) >= wanted), 1)

    def check_size(self, width: int, height: int) -> None:
        """Raise Fault when a picture is over the pixel limit."""
        if width < 1 or height < 1:
            raise Fault(Reason.TRUNCATED, f"the header says {width} x {height} pixels")
        if width * height > self.pixels:
            raise Fault(Reason.OVER_PIXEL_LIMIT, f"{width * height} pixels, the limit is {self.pixels}")

    def check_memory(self, needed_bytes: int, what: str) -> None:
        """Raise Fault when decoding would take too much memory."""
        if needed_bytes > self.memory_bytes:
            raise Fault(Reason.TOO_COSTLY, f"{what} take {needed_bytes} bytes, the limit is {self.memory_bytes}")

    def check_work(self, samples: int, what: str) -> None:
        """Raise Fault when decoding would walk too many samples."""
        limit = _SAMPLES_A_PIXEL * max(self.pixels, self.least_pixels)
        if samples > limit:
            raise Fault(Reason.TOO_COSTLY, f"{what} walk {samples} samples, the limit is {limit}")
