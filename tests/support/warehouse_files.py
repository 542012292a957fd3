"""The files of a warehouse on disk: which there are, and how old they are."""

import json
import os
from pathlib import Path

from orchard.tables.commit_rule import Tables


def root_of(tables: Tables) -> Path:
    return Path(tables.warehouse.uri.removeprefix("file://"))


def age(tables: Tables, days: float = 8) -> None:
    """Let time pass: every file is older than it was, and so is every removal that a log holds."""
    for path in root_of(tables).rglob("*"):
        if path.is_file():
            if path.parent.name == "_delta_log":
                path.write_text("".join(_aged(line, days) for line in path.read_text().splitlines()))
            moment = path.stat().st_mtime - days * 86_400
            os.utime(path, (moment, moment))


def _aged(line: str, days: float) -> str:
    action = json.loads(line)
    if "remove" in action:
        action["remove"]["deletionTimestamp"] -= int(days * 86_400_000)
    return json.dumps(action) + "\n"


def stored(tables: Tables) -> set[str]:
    return {str(path.relative_to(root_of(tables))) for path in root_of(tables).rglob("*") if path.is_file()}
