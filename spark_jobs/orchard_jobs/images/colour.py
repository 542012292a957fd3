"""Colours of an embedded profile to sRGB. A profile that is broken, or is sRGB itself, changes nothing."""

import hashlib
import io
import threading
from collections import OrderedDict

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK", "LAB": "Lab "}
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
# Profiles that differ from sRGB by less are sRGB, written down by someone else.
_SAME = 2
_KEPT = 64
_Transform = ImageCms.ImageCmsTransform

_transforms: OrderedDict[tuple[str, bytes], _Transform | None] = OrderedDict()
_lock = threading.Lock()


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image of mode L, RGB, CMYK or LAB as sRGB, by its profile, or by Pillow's conversion where it has none."""
    transform = None if profile is None else _transform(image.mode, profile)
    if transform is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    return transform.apply(image)


def _transform(mode: str, profile: bytes) -> _Transform | None:
    # Building one takes milliseconds; cameras embed few different profiles.
    key = (mode, hashlib.sha256(profile).digest())
    with _lock:
        if key not in _transforms:
            _transforms[key] = _build(mode, profile)
            if len(_transforms) > _KEPT:
                _transforms.popitem(last=False)
        _transforms.move_to_end(key)
        return _transforms[key]


def _build(mode: str, profile: bytes) -> _Transform | None:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space != _SPACES[mode]:
            return None
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB", intent, _FLAGS)
        return None if _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_nothing(transform: _Transform, mode: str) -> bool:
    if mode not in ("L", "RGB"):
        return False
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, len(steps), 3)
    sample = Image.fromarray(colours if mode == "RGB" else colours[..., 0])
    before, after = np.asarray(sample.convert("RGB")), np.asarray(transform.apply(sample))
    return bool(np.abs(before.astype(int) - after).max() <= _SAME)
