"""The command line `orchard`: one subcommand a module of `orchard.commands`, and what all of them share at the edges.

A fault is one line on stderr, never a traceback.
"""

import argparse
import io
import os
import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Protocol, cast

import pyarrow as pa
from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError
from orchard_jobs.errors import ConfigurationError, OrchardError
from orchard_jobs.escaping import escaped
from orchard_jobs.store_errors import plain_words

from orchard import __version__, commands
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

DONE, FAULT, REFUSED, INTERRUPTED = 0, 1, 2, 130
EXIT_STATUSES = {
    DONE: "done",
    FAULT: "a fault; `status`: something is pending or refused; `verify`: damage was found; `embed`, `classify`: a file is bad",
    REFUSED: "wrong usage or configuration",
    INTERRUPTED: "interrupted",
}
# What the libraries below raise where a store, a table or a file cannot be read or written.
_LIBRARY_FAULTS = (OSError, BaseError, DeltaError, pa.ArrowException)


class Command(Protocol):
    """What a module of `orchard.commands` has.

    Attributes:
        NAME: the subcommand.
        HELP: what it does, in one line.
    """

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommand's own arguments, `--json` among them."""

    def run(self, arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
        """Do it; return the exit status."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # which may have another encoding than a file's name
            stream.reconfigure(errors="backslashreplace")
    arguments = command_parser().parse_args(argv)
    try:
        settings = Settings.from_environment()
        status = cast(Command, arguments.of_command).run(arguments, settings, Tables.at(settings.warehouse))
        sys.stdout.flush()
    except ConfigurationError as error:
        return _say(str(error), REFUSED)
    except OrchardError as error:
        return _say(str(error), FAULT)
    except BrokenPipeError:
        # The reader has gone; what is still buffered must not raise again at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except _LIBRARY_FAULTS as error:
        return _say(_told(error), FAULT)
    except KeyboardInterrupt:
        return _say("interrupted; nothing is left half-done, run it again", INTERRUPTED)
    return status


def find_commands() -> Iterator[Command]:
    """Yield the subcommands among the modules of `orchard.commands`, sorted by name."""
    modules = (import_module(f"{commands.__name__}.{module.name}") for module in pkgutil.iter_modules(commands.__path__))
    for module in modules:
        if hasattr(module, "NAME"):  # what the commands share has none
            yield cast(Command, module)


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of the command `orchard`, with every subcommand."""
    parser = argparse.ArgumentParser(
        prog="orchard", description="Orchard's tables from the command line. Settings: the ORCHARD_* and AWS_* environment."
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in find_commands():
        subparser = subparsers.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(of_command=command)
    return parser


def _say(text: str, status: int) -> int:
    print(f"orchard: {text}", file=sys.stderr)
    return status


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {escaped(plain_words(error))}"


if __name__ == "__main__":
    sys.exit(main())
