"""README and docs/ say what is so. Each check is also given a wrong document."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import generate
import pytest
from orchard.cli import find_commands
from orchard.settings import describe
from support.documents import (
    PAGES,
    commands_in,
    find_broken_links,
    find_long_sentences,
    find_missing_paths,
    find_unknown_commands,
    find_unknown_services,
    find_unknown_settings,
    paths_in,
    services_in,
)
from support.repository import ROOT

MOST_WORDS = 30
MOST_LINES = 150
SETTINGS = [name for name, _, _ in describe()]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
SERVICES = re.findall(r"^  ([a-z0-9-]+):$", (ROOT / "docker-compose.yaml").read_text(), re.MULTILINE)
COMMANDS = [command.NAME for command in find_commands()]
CONTAINERS = ROOT / "docs" / "targets" / "containers.md"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


@every_page
def test_sentences_are_short(page: Path) -> None:
    assert list(find_long_sentences(page.read_text(), MOST_WORDS)) == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    assert list(find_broken_links(page, page.read_text())) == []


@every_page
def test_named_settings_exist(page: Path) -> None:
    assert list(find_unknown_settings(page.read_text(), SETTINGS)) == []


@every_page
def test_named_commands_exist(page: Path) -> None:
    text = page.read_text()
    assert [*find_unknown_commands(text, "make", TARGETS), *find_unknown_commands(text, "orchard", COMMANDS)] == []


@every_page
def test_named_services_exist(page: Path) -> None:
    assert list(find_unknown_services(page.read_text(), SERVICES)) == []


@every_page
def test_named_paths_exist(page: Path) -> None:
    # A decision is a record of its day: its paths may have moved since.
    if page.parent.name != "decisions":
        assert list(find_missing_paths(page.read_text())) == []


def test_the_checks_find_what_they_look_for_in_the_pages() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert {"run", "test", "upload"} <= {*commands_in(text, "make")}
    assert {*COMMANDS} == {*commands_in(text, "orchard")}
    assert {"postgres", "prepare"} == {*services_in(CONTAINERS.read_text())}
    assert {"spark_jobs/orchard_jobs/images/decode.py", "docs/targets/"} <= {*paths_in(text)}
    assert {*SETTINGS} <= {*re.findall(r"ORCHARD_\w+", text)}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            left += [(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())]
    assert [page for page in PAGES if page not in reached] == []


LONG = " ".join(["word"] * (MOST_WORDS + 1)) + "."
WRONG: list[tuple[Callable[[str], Iterator[str]], str]] = [
    (lambda text: find_long_sentences(text, MOST_WORDS), LONG),
    (lambda text: find_long_sentences(text, MOST_WORDS), f"Short.\n\n- A list.\n- {LONG}\n"),
    (
        lambda text: find_long_sentences(text, MOST_WORDS),
        f"| a table |\n|---|\n\n```\ncode\n```\n{LONG.replace('word', '`word`', 9)}",
    ),
    (lambda text: find_broken_links(ROOT / "README.md", text), "[gone](docs/gone.md)"),
    (lambda text: find_broken_links(ROOT / "README.md", text), "![gone](docs/images/gone.png)"),
    (lambda text: find_broken_links(ROOT / "README.md", text), "# Here\n[gone](#there)"),
    (lambda text: find_broken_links(ROOT / "README.md", text), "[`code`](docs/limits.md#no-such-heading)"),
    (lambda text: find_unknown_settings(text, SETTINGS), "Set `ORCHARD_WAREHOUSES`."),
    (lambda text: find_unknown_commands(text, "make", TARGETS), "Run `make tests`."),
    (lambda text: find_unknown_commands(text, "make", TARGETS), "```\n$ make tests\n```"),
    (lambda text: find_unknown_commands(text, "orchard", COMMANDS), "```\n.orchard/orchard state\n```"),
    (lambda text: find_unknown_services(text, SERVICES), "```\ndocker compose up --wait postgresql\n```"),
    (lambda text: find_unknown_services(text, SERVICES), "`docker compose build --build-arg A=b jobs`"),
    (find_missing_paths, "See `plugins/orchard/gone.py`."),
]


@pytest.mark.parametrize(("check", "text"), WRONG)
def test_a_check_finds_a_wrong_document(check: Callable[[str], Iterator[str]], text: str) -> None:
    assert len(list(check(text))) == 1


RIGHT = f"""# A page

A sentence with `{"word " * 40}` and [a link](docs/limits.md#gpus). See [above](#a-page).

| {LONG} |
|---|

```
{LONG}
```

`make run`, `orchard status`, `docker compose up --wait postgres`, `ORCHARD_WAREHOUSE`, `dags/pca_model.py`, `tests/<name>`.
"""


@pytest.mark.parametrize("check", [check for check, _ in WRONG])
def test_a_check_passes_a_right_document(check: Callable[[str], Iterator[str]]) -> None:
    assert list(check(RIGHT)) == []


def reference_pages() -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(generate.PAGES.glob("*.md"))}


def test_the_reference_is_what_the_code_says() -> None:
    assert list(generate.find_faults(reference_pages(), generate.blocks())) == []


@pytest.mark.parametrize(
    ("page", "old", "new"),
    [
        ("settings.md", "| `ORCHARD_WAREHOUSE` |", "| `ORCHARD_WAREHOUSES` |"),
        ("tables.md", "| `label` | string | yes |", "| `label` | string | |"),
        ("commands.md", "<!-- begin command clean -->", "<!-- begin command clear -->"),
        ("commands.md", "<!-- begin command clean -->", "<!-- begin command status -->"),
        ("quarantine.md", "<!-- begin quarantine -->", ""),
        ("quarantine.md", "| `vanished` |", "| `lost` |"),
    ],
)
def test_a_stale_reference_is_found(page: str, old: str, new: str) -> None:
    pages = reference_pages()
    assert old in pages[page]
    pages[page] = pages[page].replace(old, new, 1)
    assert list(generate.find_faults(pages, generate.blocks())) != []


def test_settings_are_grouped_by_topic() -> None:
    groups = [("Landing zone", [("ORCHARD_A", "", "a"), ("ORCHARD_B", "1", "b")]), ("Jobs", [("ORCHARD_C", "", "c")])]
    headings = [line for line in generate.settings_block(groups).splitlines() if line.startswith("##")]
    assert headings == ["## Landing zone", "## Jobs"]
