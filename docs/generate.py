"""Fill the blocks of docs/reference/ that the code knows: `make docs`. With --check, name what is stale and change nothing.

A block begins at `<!-- begin NAME -->` and ends at `<!-- end -->`. A person writes the text around the blocks.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from orchard.cli import EXIT_STATUSES, find_commands
from orchard.reporting.status import STATES
from orchard.settings import describe_groups
from orchard_jobs import cli as jobs_cli
from orchard_jobs.contract.columns import PARTITION_MEANINGS, TABLES, Column, Table
from orchard_jobs.contract.quarantine import EXPLANATIONS, Reason

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
_BLOCK = re.compile(r"(<!-- begin (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_TYPES = {
    "string": "string",
    "int32": "integer",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "bool": "boolean",
    "timestamp": "timestamp",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def settings_block(groups: Iterable[tuple[str, Sequence[tuple[str, str, str]]]]) -> str:
    """Return the settings as a table under a heading for each topic."""
    parts = []
    for topic, rows in groups:
        cells = [(f"`{name}`", f"`{default}`" if default else "", text) for name, default, text in rows]
        parts.append(f"## {topic}\n\n{table(('setting', 'default', 'meaning'), cells)}")
    return "\n\n".join(parts)


def table_block(one: Table) -> str:
    """Return what a table holds, how it is partitioned and its columns."""
    partitions = ", ".join(f"`{name}`" for name in one.partition_by)
    description = f"{one.meaning} {f'Partitioned by {partitions}.' if partitions else 'Not partitioned.'}"
    columns = [*one.columns, *(Column(name, "string", PARTITION_MEANINGS[name]) for name in one.partition_by)]
    return f"{description}\n\n{table(('column', 'type', 'null', 'meaning'), map(_column_row, columns))}"


def _column_row(column: Column) -> tuple[str, ...]:
    if not column.meaning:
        raise ValueError(f"column {column.name} has no meaning in orchard_jobs.contract.columns")
    return f"`{column.name}`", _type_name(column.type), "yes" if column.is_nullable else "", column.meaning


def _type_name(neutral: str) -> str:
    if inner := re.fullmatch(r"list<(.*)>", neutral):
        return f"array of {_type_name(inner[1])}"
    if inner := re.fullmatch(r"struct<(.*)>", neutral):
        return "struct of " + ", ".join(f"`{name}`" for name in inner[1].split(", "))
    return _TYPES[neutral]


def command_block(parser: argparse.ArgumentParser, name: str) -> str:
    """Return a command's usage, what it does and its arguments; then the same of each of its actions."""
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    nested = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    plain = [action for action in actions if action not in nested]
    words = [name, *(["[ACTION]"] if nested else []), *_usage_words(parser, plain)]
    parts = [f"```\n{' '.join(words)}\n```"]
    parts += [_sentence(parser.description)] if parser.description else []
    if plain:
        parts.append(table(("argument", "meaning"), ((f"`{_named(action)}`", _help_text(action)) for action in plain)))
    for action in nested:
        rows = []
        for choice in action._choices_actions:
            own = (one for one in action.choices[choice.dest]._actions if one.dest not in ("help", "json"))
            rows.append((f"`{' '.join([name, choice.dest, *map(_usage_word, own)])}`", choice.help or ""))
        parts.append(table(("action", "meaning"), rows))
    return "\n\n".join(parts)


def _usage_words(parser: argparse.ArgumentParser, actions: Sequence[argparse.Action]) -> Iterator[str]:
    """Yield the arguments, those that exclude each other as one word in the place of the first."""
    groups = {group._group_actions[0]: group for group in parser._mutually_exclusive_groups}
    grouped = {action for group in groups.values() for action in group._group_actions}
    for action in actions:
        if action in groups:
            choices = " | ".join(map(_named, groups[action]._group_actions))
            yield f"({choices})" if groups[action].required else f"[{choices}]"
        elif action not in grouped:
            yield _usage_word(action)


def _usage_word(action: argparse.Action) -> str:
    word = _named(action) + (" ..." if action.nargs == "+" else "")
    return word if action.required else f"[{word}]"


def _named(action: argparse.Action) -> str:
    metavar = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return metavar
    return action.option_strings[-1] + ("" if action.nargs == 0 else f" {metavar}")


def _help_text(action: argparse.Action) -> str:
    return (action.help or "") % {"default": action.default}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def jobs_block(parser: argparse.ArgumentParser) -> str:
    """Return the subcommands of the jobs' command line."""
    (nested,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    rows = ((f"`{choice.dest}`", choice.help or "") for choice in nested._choices_actions)
    return table(("subcommand", "what it does"), rows)


def make_block(makefile: str) -> str:
    """Return the targets of a Makefile that say what they do."""
    found = re.findall(r"^([a-z-]+):.*?## (.+)$", makefile, re.MULTILINE)
    return table(("command", "what it does"), ((f"`make {name}`", text) for name, text in found))


def blocks() -> dict[str, str]:
    """Return every block by its name."""
    made = {
        "settings": settings_block(describe_groups()),
        "states": table(("state", "meaning"), ((f"`{state}`", meaning) for state, meaning in STATES.items())),
        "quarantine": table(("reason", "meaning", "what you do"), ((f"`{reason}`", *EXPLANATIONS[reason]) for reason in Reason)),
        "exit statuses": table(("exit status", "meaning"), ((str(status), text) for status, text in EXIT_STATUSES.items())),
        "jobs commands": jobs_block(jobs_cli.command_parser()),
        "make": make_block((ROOT / "Makefile").read_text()),
    }
    made |= {f"table {one.name}": table_block(one) for one in TABLES}
    for command in find_commands():
        parser = argparse.ArgumentParser(command.NAME, description=command.HELP)
        command.add_arguments(parser)
        made[f"command {command.NAME}"] = command_block(parser, f"orchard {command.NAME}")
    return made


def fill(text: str, made: Mapping[str, str]) -> str:
    """Return a page with its blocks as they should be. KeyError: the page has a block that nothing makes."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{made[found[2]]}\n\n{found[3]}", text)


def find_faults(pages: Mapping[str, str], made: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with pages: a block that is stale, unknown, missing or repeated, or a table outside the blocks."""
    shown = [(page, found[2]) for page, text in pages.items() for found in _BLOCK.finditer(text)]
    names = [name for _, name in shown]
    yield from (f"{page}: nothing makes the block {name!r}" for page, name in shown if name not in made)
    yield from (
        f"the block {name!r} stands {names.count(name)} times in {PAGES.name}/" for name in made if names.count(name) != 1
    )
    for page, text in pages.items():
        by_hand = re.search(r"^ *\|.*\|$", _BLOCK.sub("", text), re.MULTILINE)
        if by_hand:
            yield f"{page}: the table row {by_hand[0]!r} stands outside the blocks: let the code make the table, or write a list"
        is_known = all(name in made for owner, name in shown if owner == page)
        if is_known and fill(text, made) != text:
            yield f"{page} is stale: run `make docs`"


def main() -> int:
    """Write the pages, or check them; 1 when one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="name what is stale and change nothing")
    is_check = parser.parse_args().check
    made = blocks()
    pages = {path: path.read_text() for path in sorted(PAGES.glob("*.md"))}
    if not is_check:
        pages = {path: fill(text, made) for path, text in pages.items()}
        for path, text in pages.items():
            path.write_text(text)
    faults = list(find_faults({str(path.relative_to(ROOT)): text for path, text in pages.items()}, made))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
