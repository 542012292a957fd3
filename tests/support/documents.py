"""Checks of Markdown documents: each takes a text and yields what is wrong with it."""

import ast
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


def docstrings_in(code: str) -> Iterator[str]:
    """Yield the docstrings of a module and of what is public in it, as prose: each entry of a section is a paragraph."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_public = isinstance(node, ast.Module) or not re.match(r"_(?!_)", node.name)
            if is_public and (text := ast.get_docstring(node)):
                yield re.sub(r"^(?=\s*(?:\w+(?: \(.*?\))?: |\w+:$))", "\n", text, flags=re.MULTILINE)


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


def find_missing_paths(text: str) -> Iterator[str]:
    """Yield the paths of the checkout that a page names in code and that are not there, place-holders apart."""
    for name in sorted(set(paths_in(text))):
        if not (ROOT / name).exists():
            yield f"{name} is not there"


def paths_in(text: str) -> list[str]:
    """Return the words of code that begin with a folder of the checkout."""
    words = re.findall(rf"(?<![^\s(\"'=])(?:\./)?((?:{'|'.join(map(re.escape, _FOLDERS))})/[^\s)\"',:;]*)", code_in(text))
    return [word for word in words if not re.search(r"[<*$]", word)]


def find_unknown_names(text: str, known: Collection[str]) -> Iterator[str]:
    """Yield the names in spans of code that no source has.

    A span that is all of `snake_case` is a DAG, a task, a column or a field. A word of `CamelCase`, or of `UPPER_CASE` with an
    underscore, is a class, an operation or a constant wherever it stands in a span.
    """
    spans = {*_SPAN.findall(_FENCE.sub("", text))}
    names = {span for span in spans if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", span)}
    for span in spans:
        names |= {*re.findall(r"(?<![\w/<.-])(?:[A-Z]\w*[a-z]\w*|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?!\w)", span)}
    for name in sorted(names - {*known}):
        yield f"{name} is in no source"


def find_unknown_dags(text: str, known: Collection[str]) -> Iterator[str]:
    """Yield the DAGs that a page names and that are not there."""
    of_commands = re.findall(r"(?:--dag-id|airflow dags [a-z-]+) ([a-z]\w+)", code_in(text))
    for name in sorted({*_named(text, "DAGs?"), *of_commands} - {*known}):
        yield f"{name} is no DAG"


def find_unknown_tables(text: str, known: Collection[str]) -> Iterator[str]:
    """Yield the tables that a page names and that are not there."""
    of_code = re.findall(r"warehouse[^\s\"'{}]*\}?/([a-z]\w*)[\"']|orchard export (?!model\b)([a-z]\w*)", code_in(text))
    for name in sorted({*_named(text, "tables?"), *("".join(pair) for pair in of_code)} - {*known}):
        yield f"{name} is no table"


def _named(text: str, kind: str) -> Iterator[str]:
    """Yield the names beside a kind of thing: `DAG `a``, `tables `a`, `b` and `c``, `the `a` table`."""
    prose, span = _FENCE.sub("", text), r"`[a-z]\w*`"
    for found in re.findall(rf"\b{kind} ({span}(?:(?:, | and |, and ){span})*)|({span}) {kind}\b", prose):
        yield from _SPAN.findall("".join(found))


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


def code_in(text: str) -> str:
    """Return all code of a page: its blocks, and a line for each span."""
    spans = _SPAN.findall(_FENCE.sub("", text))
    return "\n".join([*(body for _, body in _FENCE.findall(text)), *spans])
