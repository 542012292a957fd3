"""What a file is, by its first bytes, before any reader sees them. Only the formats of `ALLOWED` are read."""

import re
import struct
from enum import StrEnum

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.isobmff import coding_of
from orchard_jobs.images.formats.picture import Fault


class Format(StrEnum):
    """A format that is read. MPO is a JPEG with more pictures behind it."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    GIF = "GIF"
    BMP = "BMP"
    TIFF = "TIFF"
    PPM = "PPM"
    AVIF = "AVIF"
    HEIC = "HEIC"
    JPEG2000 = "JPEG2000"
    ICO = "ICO"
    TGA = "TGA"


JPEG_SIGNATURE, PNG_SIGNATURE = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Long enough never to begin another file.
_STRONG = {
    JPEG_SIGNATURE: Format.JPEG,
    PNG_SIGNATURE: Format.PNG,
    b"II*\x00": Format.TIFF,
    b"MM\x00*": Format.TIFF,
    b"II+\x00": Format.TIFF,
    b"MM\x00+": Format.TIFF,
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": Format.JPEG2000,
    b"\xff\x4f\xff\x51": Format.JPEG2000,
    b"GIF87a": Format.GIF,
    b"GIF89a": Format.GIF,
}
_NOT_READ = {
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": "JPEG XL",
    b"v/1\x01": "OpenEXR",
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"8BPS": "Photoshop",
    b"icns": "ICNS",
    b"DDS ": "DDS",
    b"\x01\xda": "SGI",
    b"SIMPLE  =": "FITS",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"GRIB": "GRIB",
    b"BUFR": "BUFR",
    b"gimp xcf": "XCF",
    b"AT&TFORM": "DjVu",
    b"BPG\xfb": "BPG",
    b"FLIF": "FLIF",
    b"qoif": "QOI",
    b"farbfeld": "farbfeld",
    b"II\xbc": "JPEG XR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"PF\n": "PFM",
    b"Pf\n": "PFM",
    b"FUJIFILMCCD-RAW": "camera raw (RAF)",
    b"IIRO": "camera raw (ORF)",
    b"IIU\x00": "camera raw (RW2)",
    b"FOVb": "camera raw (X3F)",
    b"\x8aMNG\r\n\x1a\n": "MNG",
    b"\x8bJNG\r\n\x1a\n": "JNG",
    b"\x59\xa6\x6a\x95": "Sun raster",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"/* XPM */": "XPM",
    b"BLP1": "BLP",
    b"BLP2": "BLP",
    b"\x1c\x03\x3c": "IPTC",
    b"\x00\x00\x00\x0cJXS \r\n\x87\n": "JPEG XS",
    b"\xff\x10\xff\x50": "JPEG XS",
    b"\x97JB2\r\n\x1a\n": "JBIG2",
    b"SDPX": "DPX",
    b"XPDS": "DPX",
    b"\x80\x2a\x5f\xd7": "Cineon",
    b"\xd7\x5f\x2a\x80": "Cineon",
    b"\xabKTX ": "KTX",
    b"\xb1\x68\xde\x3a": "DCX",
    b"DanM": "MSP",
    b"LinS": "MSP",
    b"\x80\xe8\x00\x00": "PIXAR",
    b"FTEX": "FTEX",
    b"VTF\x00": "VTF",
    b"\x13\xab\xa1\x5c": "ASTC",
    b"NRRD000": "NRRD",
    b"\x00MRM": "camera raw (MRW)",
    b"PF\r\n": "PFM",
    b"Pf\r\n": "PFM",
}
# By the place of a signature that does not stand at the begin.
_NOT_READ_AT = {
    (4, b"\x11\xaf"): "FLI",
    (4, b"\x12\xaf"): "FLC",
    (8, b"ILBM"): "IFF",
    (8, b"PBM "): "IFF",
    (8, b"ACON"): "ANI",
    (40, b" EMF"): "EMF",
    (128, b"DICM"): "DICOM",
    (344, b"n+1\x00"): "NIfTI",
    (344, b"ni1\x00"): "NIfTI",
}
# A transfer as text has put a carriage return before each line feed, or taken it away: the signature is made to show it.
_REPLACED = "\ufffd".encode()
_AS_TEXT = {
    b"\x89PNG\r\r\n\x1a": Format.PNG,
    b"\x89PNG\n\x1a": Format.PNG,
    # Taken for Latin-1 or for UTF-8, and written as UTF-8.
    b"\xc2\x89PNG\r\n\x1a": Format.PNG,
    _REPLACED + b"PNG\r\n\x1a": Format.PNG,
    b"\xc3\xbf\xc3\x98\xc3\xbf": Format.JPEG,
    _REPLACED * 4 + b"\x00": Format.JPEG,
}
_NOT_READ_BRANDS = {b"crx ": "camera raw (CR3)", b"jxl ": "JPEG XL"}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEVC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}
# Of both families, and of others: the primary picture decides.
_HEIF_BRANDS = {b"heif", b"mif1", b"msf1", b"mif2"}
_CODINGS = {"hvc1": Format.HEIC, "av01": Format.AVIF}
# Stray bytes, as they may stand before any marker of the header; a segment follows.
_STRAY_JPEG = re.compile(rb"\xff\xd8[^\xff]{1,4096}\xff+[\xc0-\xc4\xdb\xdd\xe0-\xef\xfe].{16}", re.DOTALL)
_PCX = re.compile(rb"\x0a[\x00-\x05][\x00\x01][\x01\x02\x04\x08]")
_PNM = re.compile(rb"P[1-6]\s", re.ASCII)
_PAM = re.compile(rb"P7\n(?:#[^\n]*\n|\n)*(?:WIDTH|HEIGHT|DEPTH|MAXVAL|TUPLTYPE)\s")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_TGA_KINDS = (1, 2, 3, 9, 10, 11)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_LATIN = re.compile(rb"[\t-\r\x20-\x7e\xa0-\xff]*")
# Their first hundreds of bytes may be text; PPM's reader judges more of it.
_BEGIN_WITH_TEXT = {Format.PPM, "PAM", "EPS", "FITS", "XPM", "NRRD"}
# No text begins so, though each byte may be a letter of Latin-1; a JPEG's first comment may be longer than what is looked at.
_NEVER_TEXT = (b"\xff\xd8", *(signature for signature in _STRONG if not signature.isascii()))


def format_of(content: bytes) -> Format:
    """Return the format of a file.

    Raises:
        Fault: NOT_AN_IMAGE; UNSUPPORTED, a format that is not read; TRUNCATED, the bytes end within the signature.
    """
    found = _named(content)
    if isinstance(found, Format):
        return found
    if found is not None:
        raise Fault(Reason.UNSUPPORTED, f"a file of the format {found}, which is not read")
    for signature in _AS_TEXT:
        if content.startswith(signature):
            raise Fault(Reason.TRUNCATED, f"a {_AS_TEXT[signature]} file that was transferred as text")
    for signature in _STRONG:
        if 1 < len(content) <= len(signature) and signature.startswith(content):
            raise Fault(Reason.TRUNCATED, f"only the first {len(content)} bytes of a {_STRONG[signature]} file")
    raise not_an_image(content)


def not_an_image(content: bytes) -> Fault:
    """Return the fault of bytes that no reader knows."""
    return Fault(Reason.NOT_AN_IMAGE, f"no reader knows the {len(content)} bytes, which begin with {content[:16]!r}")


def is_text(content: bytes) -> bool:
    """Whether the first bytes are text in UTF-8, or mostly in ASCII with some letters of Latin-1."""
    head = content[:512]
    try:
        return _CONTROL.search(head.decode()) is None
    except UnicodeDecodeError as error:
        # Cut within a character.
        if error.start > 508 and _CONTROL.search(head[: error.start].decode()) is None:
            return True
    return _LATIN.fullmatch(head) is not None and sum(byte > 127 for byte in head) < len(head) / 4


def _named(content: bytes) -> Format | str | None:
    found = _by_signature(content)
    if found in _BEGIN_WITH_TEXT or content.startswith(_NEVER_TEXT):
        return found
    # Text may begin with nearly any other signature; what follows one in a picture is no text.
    return None if is_text(content) else found


def _by_signature(content: bytes) -> Format | str | None:
    for signatures in (_STRONG, _NOT_READ):
        for signature, found in signatures.items():
            if content.startswith(signature):
                return found
    if (content[:4], content[8:12]) == (b"RIFF", b"WEBP"):
        return Format.WEBP
    if content[4:8] == b"ftyp":
        return _by_brand(content)
    for (place, signature), found in _NOT_READ_AT.items():
        if content.startswith(signature, place):
            return found
    return _weakly(content)


def _by_brand(content: bytes) -> Format | str | None:
    size = max(16, min(int.from_bytes(content[:4], "big"), 256))
    brands = [content[8:12], *(content[start : start + 4] for start in range(16, size, 4))]
    is_avif, is_hevc = (not family.isdisjoint(brands) for family in (_AVIF_BRANDS, _HEVC_BRANDS))
    if is_avif != is_hevc:
        return Format.AVIF if is_avif else Format.HEIC
    if is_avif or not _HEIF_BRANDS.isdisjoint(brands):
        coding = coding_of(content)
        return Format.HEIC if coding is None else _CODINGS.get(coding, f"HEIF with {coding!r} inside")
    return next((_NOT_READ_BRANDS[brand] for brand in brands if brand in _NOT_READ_BRANDS), None)


def _weakly(content: bytes) -> Format | str | None:
    """Return the format of a file whose signature is short: its header must make sense, too."""
    if content.startswith(b"BM"):
        return Format.BMP if _is_bmp(content) else None
    if _PNM.match(content):
        return Format.PPM
    if _PAM.match(content):
        return "PAM"
    if content.startswith(b"\x00\x00\x01\x00"):
        return Format.ICO
    if _STRAY_JPEG.match(content):
        return Format.JPEG
    if _PCX.match(content):
        return "PCX"
    if _is_tga(content):
        return Format.TGA
    return "CUR" if content.startswith(b"\x00\x00\x02\x00") and content[4:5] > b"\x00" else None


def _is_bmp(content: bytes) -> bool:
    return len(content) < 18 or int.from_bytes(content[14:18], "little") in _BMP_HEADERS


def _is_tga(content: bytes) -> bool:
    if content.endswith(b"TRUEVISION-XFILE.\x00"):
        return True
    if len(content) < 18:
        return False
    _, has_map, kind, _, _, map_bits, _, _, width, height, bits, flags = struct.unpack("<BBBHHBHHHHBB", content[:18])
    is_map_right = map_bits in (15, 16, 24, 32) if has_map else map_bits in (0, 24)
    is_picture = kind in _TGA_KINDS and bits in (1, 8, 15, 16, 24, 32) and width > 0 and height > 0
    return has_map in (0, 1) and is_map_right and is_picture and (kind in (1, 9)) == (has_map == 1) and not flags & 0xC0
