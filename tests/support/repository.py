"""Where the checkout lies, its sources, and the folder of real sample images."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# It need not be there.
SHARED = Path(os.environ.get("ORCHARD_SHARED_DATA") or ROOT.parent / "shared" / "data")


def sources_in(*folders: str) -> list[Path]:
    """Return the Python files under folders of the checkout, in order."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if ".venv" not in path.parts]


def sources_of_tests() -> list[Path]:
    """Return the test files."""
    return sources_in("tests")
