"""What the commands share on a terminal: a table of text, a size in bytes. Returns text and prints nothing."""

from collections.abc import Sequence

_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a head, aligned; columns of numbers to the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [
        all(cell.replace("%", "").replace(".", "").lstrip("-").isdigit() or cell == "-" for cell in c[1:]) for c in columns
    ]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def format_bytes(size_bytes: int) -> str:
    """Return a size in the largest unit that leaves at least 1."""
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size_bytes} bytes" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
