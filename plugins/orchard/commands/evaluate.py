"""`orchard evaluate`: how right classifiers are, by batch, class and score, on images that they had never seen."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from orchard.commands.console import format_table
from orchard.reporting.evaluation import BatchFigures, ClassFigures, EvaluationReport, ScoreBin, evaluate
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "evaluate"
HELP = "show how right predictions are: by batch, by class, which classes are mixed up, and whether scores can be trusted"
_MOST_MISTAKES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to evaluate."""
    parser.description = f"{HELP}. Only images count that the classifier had never seen; others are shown apart."
    parser.add_argument("--model", metavar="ID", help="one classifier's predictions: its id, or its first characters")
    parser.add_argument("--batch", metavar="ID", help="one batch")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Print the figures; the exit status is 0 even if nothing is predicted yet."""
    found = evaluate(tables, settings, arguments.model, arguments.batch)
    if arguments.json:
        own = [asdict(batch) | {"accuracy": batch.accuracy} for batch in found.batches]
        print(json.dumps(asdict(found) | {"batches": own, "calibration_error": found.calibration_error}))
    elif not found.batches:
        print("nothing is predicted yet: classifier_model fits a classifier once two classes have enough labelled images")
    else:
        print("\n\n".join(_parts(found)))
    return 0


def _parts(found: EvaluationReport) -> Iterator[str]:
    head = ("batch", "classifier", "images", "unseen", "accuracy", "of three", "known", "seen", "unlabelled", "estimate")
    yield format_table(head, list(map(_batch_row, found.batches)))
    if not found.classes:
        yield "no image with a label is new to the classifier that predicted it: nothing tells how right it is"
        return
    yield format_table(("class", "unseen", "found", "correct"), list(map(_class_row, found.classes)))
    if found.mistakes:
        rows = [(one.name, one.predicted, str(one.rows)) for one in found.mistakes[:_MOST_MISTAKES]]
        yield format_table(("class", "taken for", "images"), rows)
    yield format_table(("score", "unseen", "mean score", "right"), list(map(_bin_row, found.bins)))
    yield f"expected calibration error: {_share(found.calibration_error)}"


def _batch_row(batch: BatchFigures) -> tuple[str, ...]:
    counts = (batch.rows, batch.unseen_rows)
    shares = (batch.accuracy, _part(batch.unseen_among_three, batch.unseen_rows), _part(batch.unseen_known, batch.unseen_rows))
    rest = (str(batch.seen_rows), str(batch.unlabelled_rows), _share(batch.unlabelled_score))
    return (batch.batch_id, batch.model_id, *map(str, counts), *map(_share, shares), *rest)


def _class_row(one: ClassFigures) -> tuple[str, ...]:
    return (one.name, str(one.rows), _share(_part(one.right, one.rows)), _share(_part(one.right, one.predicted)))


def _bin_row(one: ScoreBin) -> tuple[str, ...]:
    return (f"{one.low:.1f} to {one.high:.1f}", str(one.rows), _share(one.score), _share(one.right / one.rows))


def _part(some: int, of: int) -> float | None:
    return some / of if of else None


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
