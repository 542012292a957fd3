"""Checks of the commands in Markdown documents: programs, subcommands, actions, options, and services of `docker compose`."""

import argparse
import re
from collections.abc import Collection, Iterable, Iterator

from support.documents import code_in

# Of `docker compose`: those that take services, and the options of theirs that take a value.
_OF_SERVICES = {
    *("attach", "build", "create", "exec", "kill", "logs", "pause", "port", "ps", "pull", "push", "restart", "rm", "run"),
    *("start", "stop", "top", "unpause", "up", "wait", "watch"),
}
_OF_PROJECT = {"config", "cp", "down", "events", "images", "ls", "stats", "version", "volumes"}
_WITH_VALUE = {
    *("--build-arg", "--env", "--env-file", "--file", "--name", "--profile", "--project-name", "--pull", "--scale", "--since"),
    *("--tail", "--timeout", "--user", "--volume", "--wait-timeout", "--workdir", "-e", "-n", "-p", "-t", "-u", "-v", "-w"),
}
# Of other programs, which pages name without their program.
_FOREIGN_OPTIONS = {"--reprocess-behavior"}


def commands_in(text: str, program: str) -> list[str]:
    """Return the first word after a program's name, wherever code has one."""
    return re.findall(rf"(?:^|[\s/$]){re.escape(program)} ([a-z][a-z-]*)", code_in(text), re.MULTILINE)


def find_unknown_commands(text: str, program: str, known: Collection[str]) -> Iterator[str]:
    """Yield the subcommands of a program that a page names in code and the program does not have."""
    for name in sorted({*commands_in(text, program)} - {*known}):
        yield f"`{program} {name}` is no command"


def find_unknown_options(text: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the actions and the options that a page gives to a program's subcommands and that these do not have."""
    for line in re.findall(rf"(?:^|[\s/$]){re.escape(parser.prog)} ([^|>#(\n]*)", code_in(text), re.MULTILINE):
        words = [word.strip("[],.;:") for word in line.split()]
        if words and words[0] in nested_in(parser):
            yield from _unknown_words(parser.prog, nested_in(parser)[words[0]], words)


def _unknown_words(program: str, parser: argparse.ArgumentParser, words: list[str]) -> Iterator[str]:
    for word in words[1:]:
        actions = nested_in(parser)
        if word.startswith("--"):
            if word.partition("=")[0] not in options_of(parser):
                yield f"`{program} {words[0]}` has no option {word}"
        elif word in actions:
            parser = actions[word]
        elif actions and re.fullmatch(r"[a-z][a-z-]+", word):
            yield f"`{program} {words[0]}` has no action {word}"


def find_unknown_bare_options(text: str, parsers: Iterable[argparse.ArgumentParser]) -> Iterator[str]:
    """Yield the options that a page names without their command and that no command has."""
    known = {option for parser in parsers for option in _all_options(parser)}
    for option in sorted({*re.findall(r"^(--[a-z][a-z-]*)", code_in(text), re.MULTILINE)} - known - _FOREIGN_OPTIONS):
        yield f"no command has the option {option}"


def nested_in(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the subcommands of a parser, or the actions of a subcommand's."""
    found = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: inner for choices in found for name, inner in choices.items()}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options of a parser's own."""
    return {option for action in parser._actions for option in action.option_strings}


def _all_options(parser: argparse.ArgumentParser) -> set[str]:
    return options_of(parser).union(*map(_all_options, nested_in(parser).values()))


def find_unknown_services(text: str, known: Collection[str]) -> Iterator[str]:
    """Yield the services that a page gives to `docker compose` and the compose file does not have, and unknown verbs."""
    for verb, names in compose_commands_in(text):
        if verb not in _OF_SERVICES | _OF_PROJECT:
            yield f"`docker compose {verb}` is no command"
        yield from (f"{name} is no service" for name in names if name not in known)


def compose_commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the verb and the services of each command of `docker compose` on a page."""
    for line in re.findall(r"docker compose ([^|<>#;&\n]*)", code_in(text)):
        words = list(_without_options(line.split()))
        verb, names = words[0] if words else "", words[1:] if words[:1] and words[0] in _OF_SERVICES else []
        yield verb, names[:1] if verb in ("exec", "run") else [name for name in names if name != "..."]


def _without_options(words: list[str]) -> Iterator[str]:
    is_value = False
    for word in words:
        if not is_value and not word.startswith("-"):
            yield word
        is_value = not is_value and word in _WITH_VALUE
