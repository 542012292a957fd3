"""README and docs/ say what is so. Each check is also given a wrong document."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.session
import generate
import pytest
from orchard.cli import command_parser
from orchard.settings import describe
from orchard_jobs import cli as jobs_cli
from orchard_jobs.contract.columns import TABLES
from support.document_commands import (
    commands_in,
    compose_commands_in,
    find_unknown_bare_options,
    find_unknown_commands,
    find_unknown_options,
    find_unknown_services,
    nested_in,
)
from support.documents import (
    PAGES,
    docstrings_in,
    find_broken_links,
    find_long_sentences,
    find_missing_paths,
    find_unknown_dags,
    find_unknown_names,
    find_unknown_settings,
    find_unknown_tables,
    paths_in,
)
from support.repository import ROOT, sources_in

MOST_WORDS = 30
MOST_LINES = 150
SETTINGS = [name for name, _, _ in describe()]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
(COMPOSED,) = re.findall(r"^services:\n((?: .*\n|\n)+)", (ROOT / "docker-compose.yaml").read_text(), re.MULTILINE)
SERVICES = re.findall(r"^  ([a-z0-9-]+):$", COMPOSED, re.MULTILINE)
PARSERS = (command_parser(), jobs_cli.command_parser())
DAGS = [path.stem for path in (ROOT / "dags").glob("*.py")]
TABLE_NAMES = [table.name for table in TABLES]
SOURCES = [path.read_text() for path in sources_in("dags", "plugins", "spark_jobs", "sandbox")]
SOURCES += [(ROOT / name).read_text() for name in ("Makefile", "docker-compose.yaml", "Dockerfile", "pyproject.toml")]
AWS = botocore.session.get_session()
OPERATIONS = {
    name
    for service in ("s3", "sqs", "emr", "emr-serverless", "glue", "logs")
    for name in AWS.get_service_model(service).operation_names
}
# A key of Databricks's API, a permission of AWS, a file of Windows and a variable of Spark, which no source names.
FOREIGN = {"instance_profile_arn", "PassRole", "Thumbs", "SPARK_CONF_DIR"}
WORDS = {*re.findall(r"\w+", "\n".join(SOURCES)), *DAGS, *SETTINGS, *OPERATIONS, *FOREIGN}
CONTAINERS = ROOT / "docs" / "targets" / "containers.md"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
# A decision is a record of its day: what it names may have moved since.
PRESENT = [page for page in PAGES if page.parent.name != "decisions"]
of_today = pytest.mark.parametrize("page", PRESENT, ids=lambda page: str(page.relative_to(ROOT)))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


@every_page
def test_sentences_are_short(page: Path) -> None:
    assert list(find_long_sentences(page.read_text(), MOST_WORDS)) == []


def test_sentences_of_the_changelog_are_short() -> None:
    assert list(find_long_sentences((ROOT / "CHANGELOG.md").read_text(), MOST_WORDS)) == []


def long_sentences_in_docstrings(code: str) -> Iterator[str]:
    """Yield the long sentences of a module's docstrings."""
    for text in docstrings_in(code):
        yield from find_long_sentences(text, MOST_WORDS)


@pytest.mark.parametrize("folder", ["dags", "plugins", "spark_jobs", "sandbox", "bench", "docs"])
def test_sentences_of_docstrings_are_short(folder: str) -> None:
    found = {str(path.relative_to(ROOT)): list(long_sentences_in_docstrings(path.read_text())) for path in sources_in(folder)}
    assert found
    assert {path: sentences for path, sentences in found.items() if sentences} == {}


def test_entries_of_a_docstrings_sections_are_read_apart() -> None:
    entry = " ".join(["word"] * (MOST_WORDS - 1))
    text = f"Do it.\n\n    Args:\n        a: {entry}\n        b: {entry}\n\n    Raises:\n        ValueError: {entry}\n    "
    assert list(long_sentences_in_docstrings(f'def call(a, b):\n    """{text}"""')) == []


@pytest.mark.parametrize(
    "code",
    ['"""{}"""', 'class Public:\n    def call(self, a):\n        """Do it.\n\n        Args:\n            a: {}\n        """'],
)
def test_a_long_sentence_of_a_docstring_is_found(code: str) -> None:
    assert len(list(long_sentences_in_docstrings(code.format(LONG)))) == 1


def test_docstrings_that_are_not_public_are_not_judged() -> None:
    assert list(long_sentences_in_docstrings(f'def _own():\n    """{LONG}"""')) == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    assert list(find_broken_links(page, page.read_text())) == []


@every_page
def test_named_settings_exist(page: Path) -> None:
    assert list(find_unknown_settings(page.read_text(), SETTINGS)) == []


@every_page
def test_named_commands_exist(page: Path) -> None:
    text = page.read_text()
    assert list(find_unknown_commands(text, "make", TARGETS)) == []
    assert [one for parser in PARSERS for one in find_unknown_commands(text, parser.prog, nested_in(parser))] == []


@every_page
def test_named_options_and_actions_exist(page: Path) -> None:
    text = page.read_text()
    assert [one for parser in PARSERS for one in find_unknown_options(text, parser)] == []
    assert list(find_unknown_bare_options(text, PARSERS)) == []


@of_today
def test_named_dags_and_tables_exist(page: Path) -> None:
    text = page.read_text()
    assert [*find_unknown_dags(text, DAGS), *find_unknown_tables(text, TABLE_NAMES), *find_unknown_names(text, WORDS)] == []


@every_page
def test_named_services_exist(page: Path) -> None:
    assert list(find_unknown_services(page.read_text(), SERVICES)) == []


@of_today
def test_named_paths_exist(page: Path) -> None:
    assert list(find_missing_paths(page.read_text())) == []


def test_the_checks_find_what_they_look_for_in_the_pages() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert {"run", "test", "upload"} <= {*commands_in(text, "make")}
    assert {*nested_in(PARSERS[0])} == {*commands_in(text, "orchard")}
    composed = list(compose_commands_in(CONTAINERS.read_text()))
    assert {"postgres", "prepare"} == {service for _, services in composed for service in services}
    assert {"up", "stop", "down", "exec", "build"} == {verb for verb, _ in composed}
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
    (lambda text: find_unknown_commands(text, "orchard", nested_in(PARSERS[0])), "```\n.orchard/orchard state\n```"),
    (lambda text: find_unknown_options(text, PARSERS[0]), "```\n.orchard/orchard export features --into x.csv\n```"),
    (lambda text: find_unknown_options(text, PARSERS[0]), "`orchard models promote ID --force`"),
    (lambda text: find_unknown_options(text, PARSERS[0]), "`orchard models demote ID`"),
    (lambda text: find_unknown_options(text, PARSERS[1]), "`orchard-jobs prepare --store s3://a/b`"),
    (lambda text: find_unknown_bare_options(text, PARSERS), "Add `--dry-runs`."),
    (lambda text: find_unknown_dags(text, DAGS), "The DAG `features` starts."),
    (lambda text: find_unknown_dags(text, DAGS), "The `runs` DAG starts."),
    (lambda text: find_unknown_dags(text, DAGS), "```\nairflow backfill create --dag-id image_batch\n```"),
    (lambda text: find_unknown_tables(text, TABLE_NAMES), "Read the tables `features` and `pictures`."),
    (lambda text: find_unknown_tables(text, TABLE_NAMES), "Read the `pictures` table."),
    (lambda text: find_unknown_tables(text, TABLE_NAMES), '```\nDeltaTable(f"{warehouse}/pictures")\n```'),
    (lambda text: find_unknown_tables(text, TABLE_NAMES), "`orchard export pictures`"),
    (lambda text: find_unknown_names(text, WORDS), "Start `image_batch`."),
    (lambda text: find_unknown_names(text, WORDS), "`Warehouses.delete` is for the Airflow side."),
    (lambda text: find_unknown_names(text, WORDS), "The role needs `emr-serverless:StartJobRuns`."),
    (lambda text: find_unknown_names(text, WORDS), "Add the target to `EMR_TARGETTS`."),
    (lambda text: find_unknown_names(text, WORDS), "A `TargetSetting` group."),
    (lambda text: find_unknown_services(text, SERVICES), "```\ndocker compose up --wait postgresql\n```"),
    (lambda text: find_unknown_services(text, SERVICES), "`docker compose build --build-arg A=b jobs`"),
    (lambda text: find_unknown_services(text, SERVICES), "`docker compose logs -f --tail 10 postgresql`"),
    (lambda text: find_unknown_services(text, SERVICES), "`docker compose run --rm -e A=b postgresql sh`"),
    (lambda text: find_unknown_services(text, SERVICES), "`docker compose rise postgres`"),
    (find_missing_paths, "See `plugins/orchard/gone.py`."),
    (find_missing_paths, "```\npython bench/gone.py --count 3\n```"),
    (find_missing_paths, "```\ndocker build -f spark_jobs/Dockerfiles .\n```"),
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

```
docker compose exec -T postgres psql; python bench/plan_times.py >out.txt
orchard export features --to x.csv   # or --like this
```

`make run`, `orchard status`, `orchard models promote ID`, `--dry-run`, the DAG `pca_model`, the `features` table,
`docker compose down -v`, `docker compose up --wait postgres`,
`ORCHARD_WAREHOUSE`, `dags/pca_model.py`, `tests/<name>`.
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
        ("settings.md", "<!-- begin settings -->", "| setting | default |\n|---|---|\n\n<!-- begin settings -->"),
        ("commands.md", "<!-- begin make -->", "| `make` | builds |\n\n<!-- begin make -->"),
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
