"""Finds the batches in a folder of images, and the key of each file below the landing prefix.

It reads names only: no S3, no Airflow.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchard.landing_zone.keys import is_batch_key
from orchard_jobs.contract.locations import is_desktop_junk

from orchard_sandbox.errors import SandboxError

KEY_FORMAT = "%Y-%m-%d"
_DATE_LIKE = re.compile(r"\d{4}[-_.]\d{1,2}[-_.]?\d{1,2}.*")
# A label may be a number, such as the id of a species: digits alone are a date only where every folder's name is one.
_DIGITS, _CENTURIES = "%Y%m%d", ("19", "20")
_LAYOUTS = "<YYYY-MM-DD>/<label>/<file> or <label>/<file>"


@dataclass(frozen=True)
class LocalBatch:
    """The files of one batch.

    Attributes:
        name: the batch's name, its partition key.
        files: path of each file, by its key below the batch's prefix: `<label>/<file>` with raw names.
        hidden: files left out because they are hidden, or because a desktop made them (.DS_Store).
    """

    name: str
    files: dict[str, Path]
    hidden: int


def find_batches(
    folder: Path, chosen: tuple[str, ...] = (), day: str | None = None, key_format: str = KEY_FORMAT
) -> list[LocalBatch]:
    """Return the batches of a folder, an empty one too.

    Args:
        folder: `<batch>/<label>/<file>`, or `<label>/<file>`, which becomes one batch.
        chosen: names to pick; none means all.
        day: the batch's name for `<label>/<file>`; None means today (UTC).
        key_format: strptime form of a batch's name.

    Raises:
        SandboxError: no such folder, a bad batch name, a batch that is not there, or nothing found.
    """
    if not folder.is_dir():
        raise SandboxError(f"IMAGES={folder} is not a folder: give one that holds {_LAYOUTS}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))
    if any(is_batch_key(name, key_format) for name in names):
        return _dated_batches(folder, names, chosen, day, key_format)
    if day is None and (odd := _date_like(names)):
        raise SandboxError(
            f"{folder / odd} looks like a batch but is not of the form {key_format}: rename it or, where it is a label, name the "
            "batch by BATCH=..."
        )
    name = day or datetime.now(UTC).strftime(key_format)
    if not is_batch_key(name, key_format):
        raise SandboxError(f"BATCH={name} is not of the form {key_format}: give a date such as BATCH=2026-01-31")
    if chosen and chosen != (name,):
        raise SandboxError(
            f"{folder} holds labels, one batch ({name}), so BATCHES={' '.join(chosen)!r} has no effect: leave it out"
        )
    batch = read_batch(folder, name)
    if not batch.files:
        raise SandboxError(f"found no file in {folder}: give IMAGES=folder that holds {_LAYOUTS}")
    return [batch]


def _date_like(names: list[str]) -> str | None:
    if names and all(name.startswith(_CENTURIES) and is_batch_key(name, _DIGITS) for name in names):
        return names[0]
    return next(filter(_DATE_LIKE.fullmatch, names), None)


def _dated_batches(folder: Path, names: list[str], chosen: tuple[str, ...], day: str | None, key_format: str) -> list[LocalBatch]:
    if day:
        raise SandboxError(f'{folder} already contains batch folders; use BATCHES="{day}" instead of BATCH={day}')
    strangers = [name for name in names if not is_batch_key(name, key_format)]
    if strangers and not chosen:
        raise SandboxError(
            f"{folder / strangers[0]} is not a batch, but its neighbours are: name it as a date ({key_format}), move it away, "
            'or pick batches by BATCHES="..."'
        )
    missing = [name for name in chosen if name not in names or name in strangers]
    if missing:
        there = " ".join(name for name in names if name not in strangers)
        raise SandboxError(f"BATCHES names {missing[0]!r}, which is not a batch in {folder}: there are {there}")
    return [read_batch(folder / name, name) for name in chosen or names]


def read_batch(folder: Path, name: str) -> LocalBatch:
    """Return the files of one batch's folder, at any depth; links to files and folders are followed."""
    files: dict[str, Path] = {}
    hidden = 0
    for path in _walk(folder):
        parts = path.relative_to(folder).parts
        if any(_is_hidden(part) for part in parts):
            hidden += 1
            continue
        key = "/".join(parts)
        try:
            size = len(key.encode())
        except UnicodeEncodeError as error:
            raise SandboxError(f"the name of {str(path)!r} is not UTF-8, so it can be no key in S3: rename it") from error
        if size > 900:
            raise SandboxError(
                f"the name {key[:80]!r}... in {folder} has {size} bytes, and S3 takes 1,024 with the prefix: shorten it"
            )
        files[key] = path
    return LocalBatch(name, files, hidden)


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if Path(parent, name).is_file())


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_desktop_junk(name)
