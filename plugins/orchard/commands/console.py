"""What the commands share on a terminal: a table of text, a size in bytes, a line for each image file."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchard_jobs.escaping import escaped

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


def print_files(
    rows: Iterable[Mapping[str, Any]], known: Mapping[str, Any], to_text: Callable[[Mapping[str, Any]], str], *, is_json: bool
) -> int:
    """Print a line for each image file as its row comes; return the exit status, which is 1 if a file is bad.

    Args:
        rows: what the jobs' environment found out of each file; a bad one has a reason and a message.
        known: what holds for every good file, and is added to its row.
        to_text: what a person reads of a good file, behind its name.
        is_json: print each row as JSON instead.
    """
    status = 0
    for row in rows:
        status = 1 if "reason" in row else status
        found = row if "reason" in row else {**row, **known}
        print(json.dumps(found) if is_json else _file_line(found, to_text), flush=True)
    return status


def _file_line(row: Mapping[str, Any], to_text: Callable[[Mapping[str, Any]], str]) -> str:
    told = f"{row['reason']}: {escaped(row['message'])}" if "reason" in row else to_text(row)
    return f"{escaped(row['file'])}  {told}"
