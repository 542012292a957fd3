"""Checks of Markdown documents: each takes a text and yields what is wrong with it."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from support.repository import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[((?:[^\]`]|`[^`]*`)*)\]\(([^)\s]+)\)")
_FOLDERS = ("plugins", "spark_jobs", "dags", "sandbox", "bench", "tests", "requirements", "docs", ".ci")
# Variables of the sandbox and between processes, which are no settings.
_OTHER_VARIABLES = {"ORCHARD_HOME", "ORCHARD_PYTHON", "ORCHARD_OWNER_PID"}


def find_long_sentences(text: str, most_words: int) -> Iterator[str]:
    """Yield the sentences of more words than allowed; a span of code is one word, and tables and blocks of code are left out."""
    for paragraph in _paragraphs(text):
        for sentence in re.split(r"(?<=[.!?])\s+", paragraph):
            if len(sentence.split()) > most_words:
                yield f"{len(sentence.split())} words: {sentence}"


def _paragraphs(text: str) -> Iterator[str]:
    prose = re.sub(r"<!--.*?-->", "", _FENCE.sub("\n", text), flags=re.DOTALL)
    lines = ("" if line.lstrip().startswith(("|", "#")) else line for line in prose.splitlines())
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(lines)):
        plain = _SPAN.sub("code", _LINK.sub(r"\1", paragraph))
        yield re.sub(r"^\s*(?:[-*]|\d+\.) ", "", plain).replace("**", "")


def find_broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield the relative links of a page to a file, a folder or a heading that is not there."""
    for _, target in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors_of(path.read_text() if name else text):
            yield f"{target}: no such heading"


def anchors_of(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", _LINK.sub(r"\1", heading)).strip().lower().replace(" ", "-") for heading in headings}


def find_unknown_settings(text: str, known: Collection[str]) -> Iterator[str]:
    """Yield the variables `ORCHARD_*` that a page names and nothing reads."""
    for name in sorted({*re.findall(r"\bORCHARD_[A-Z0-9_]*[A-Z0-9]", text)} - {*known} - _OTHER_VARIABLES):
        yield f"{name} is no setting"


def find_unknown_commands(text: str, program: str, known: Collection[str]) -> Iterator[str]:
    """Yield the subcommands of a program that a page names in code and the program does not have."""
    for name in sorted({*commands_in(text, program)} - {*known}):
        yield f"`{program} {name}` is no command"


def commands_in(text: str, program: str) -> list[str]:
    """Return the first word after a program's name, wherever code has one."""
    return re.findall(rf"(?:^|[\s/$]){re.escape(program)} ([a-z][a-z-]*)", _code(text), re.MULTILINE)


def find_unknown_services(text: str, known: Collection[str]) -> Iterator[str]:
    """Yield the services that a page gives to `docker compose` and the compose file does not have."""
    for name in sorted({*services_in(text)} - {*known}):
        yield f"{name} is no service"


def services_in(text: str) -> list[str]:
    """Return the services that a page's commands of `docker compose` name."""
    command = r"docker compose (?:build(?: --build-arg \S+)*|exec -T|up(?: --\S+)*|restart|stop) ([a-z][a-z0-9-]*)"
    return re.findall(command, _code(text))


def find_missing_paths(text: str) -> Iterator[str]:
    """Yield the paths of the checkout that a page names in code and that are not there, place-holders apart."""
    for name in sorted(set(paths_in(text))):
        if not (ROOT / name).exists():
            yield f"{name} is not there"


def paths_in(text: str) -> list[str]:
    """Return the spans of code that begin with a folder of the checkout."""
    return [name for name in _SPAN.findall(text) if name.split("/")[0] in _FOLDERS and not re.search(r"[<*\s]|^[^/]+$", name)]


def find_unknown_labels(walk: str, shown: Collection[str]) -> Iterator[str]:
    """Yield the bold and quoted words of a walk through the UI that the UI does not show, and a walk that names nothing."""
    named = re.findall(r"\*\*(.+?)\*\*", walk) + re.findall(r'"(.+?)"', walk)
    if not named:
        yield "the walk names no label"
    for name in named:
        if name.replace("image_batches", "{{dag_display_name}}") not in shown:
            yield f"the UI shows no {name!r}"


def programs_in(text: str) -> list[str]:
    """Return the Python programs of a page."""
    return [body for language, body in _FENCE.findall(text) if language == "python"]


def _code(text: str) -> str:
    spans = _SPAN.findall(_FENCE.sub("", text))
    return "\n".join([*(body for _, body in _FENCE.findall(text)), *spans])
