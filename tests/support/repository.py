"""Where the checkout lies, and its sources."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The folders of tests that keep every rule of tests/architecture.
CHECKED_TESTS = ("architecture", "containers", "dags", "launchers", "support", "unit/orchard")


def sources_in(*folders: str) -> list[Path]:
    """Return the Python files under folders of the checkout, in order."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if ".venv" not in path.parts]


def checked_tests() -> list[Path]:
    """Return the test files that keep every rule."""
    return [ROOT / "tests" / "conftest.py", *sources_in(*(f"tests/{folder}" for folder in CHECKED_TESTS))]
