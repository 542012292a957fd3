"""What a reader hands on, how it says no, and how much a picture may cost. Knows no format."""

from dataclasses import dataclass

from PIL import Image

from orchard_jobs.contract.quarantine import Reason

# Of decoding, a pixel of the limit, on top of the file itself: the uncompressed samples and the copies made on the way to RGB.
_BYTES_A_PIXEL = 20
# A scan of a JPEG walks all samples of its components. Ten usual scans of a colour picture walk 14 samples a pixel.
_SAMPLES_A_PIXEL = 40
# Small limits still admit small pictures, however they are stored.
_LEAST_PIXELS = 10_000_000


class Fault(Exception):
    """The file gives no picture. Its words are equal for equal bytes."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A decoded first frame.

    Attributes:
        image: of mode L, RGB, CMYK or LAB, or with alpha LA, La, RGBA or RGBa; 8 bits a sample.
        orientation: EXIF's, 1 to 8; 1 is upright.
        profile: the embedded colour profile; None where there is none.
    """

    image: Image.Image
    orientation: int = 1
    profile: bytes | None = None


@dataclass(frozen=True)
class Limits:
    """What one picture may cost, judged from headers before anything is expanded.

    Attributes:
        pixels: width x height above which a picture is rejected.
        least_pixels: memory and time are granted for so many, however low the limit is.
    """

    pixels: int
    least_pixels: int = _LEAST_PIXELS

    @property
    def memory_bytes(self) -> int:
        """Bytes that decoding may take, the file apart: 1 GB at the default of 50,000,000 pixels."""
        return _BYTES_A_PIXEL * max(self.pixels, self.least_pixels)

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
