"""Files that are there whole or not at all, whenever the process that writes them is killed. Standard library only."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner can read; readers see the former content or the new one."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    # The kernel keeps what a killed process has written; only a power cut would need an fsync.
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.replace(fresh, path)
