"""Where the checkout lies, and its sources."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def sources_in(*folders: str) -> list[Path]:
    """Return the Python files under folders of the checkout, in order."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if ".venv" not in path.parts]


def sources_of_tests() -> list[Path]:
    """Return the test files."""
    return sources_in("tests")
