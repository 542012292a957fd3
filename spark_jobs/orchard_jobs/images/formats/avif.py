"""Read an AVIF. Its library decodes zeros in place of data without an error, but coded data have no more than a few in a row."""

from collections.abc import Iterator

from PIL import AvifImagePlugin

from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.images.formats.isobmff import Container, Item, read_container
from orchard_jobs.images.formats.picture import Fault, Limits, Picture
from orchard_jobs.images.formats.signatures import Format
from orchard_jobs.images.formats.stock import load_with, picture_of

# Of photos and drawn pictures of all qualities, none has more than 4 zero bytes in a row.
_MOST_ZEROS = 64

# One thread a picture: the workers share the cores among pictures.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def read_avif(content: bytes, limits: Limits) -> Picture:
    """Return the primary picture, with its transparency if it has any."""
    if content[8:12] == b"mif1":
        # The library asks for its own brand, where the primary picture has already said it.
        content = content[:8] + b"avif" + content[12:]
    image = load_with(content, Format.AVIF, limits)
    if _has_hole(content):
        raise Fault(Reason.TRUNCATED, f"AVIF: more than {_MOST_ZEROS} zero bytes stand in a row, in place of data")
    return picture_of(image)


def _has_hole(content: bytes) -> bool:
    try:
        container = read_container(content)
    except Fault:
        return False  # the library may know what this reader of boxes does not
    return any(bytes(_MOST_ZEROS + 1) in (item.content or b"") for item in _shown(container))


def _shown(container: Container) -> Iterator[Item]:
    """Yield what is coded of the primary picture, and of its transparency: the pictures themselves, or their tiles."""
    if container.primary is None:
        return
    alphas = [
        number
        for (kind, number), shown in container.references.items()
        if kind == b"auxl" and container.primary in shown and b":alpha" in b"".join(container.item(number).bodies(b"auxC"))
    ]
    for number in (container.primary, *alphas):
        yield from map(container.item, container.references.get((b"dimg", number), [number]))
