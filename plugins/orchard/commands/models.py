"""`orchard models`: list the models of the current backbone, PCA models and classifiers; promote, pin and release them."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any

from orchard.commands.console import format_table
from orchard.models.kinds import KIND_OF_NAME, PCA
from orchard.models.model import current_promotion, known_model
from orchard.models.registry import pin, promote, release, unpin
from orchard.reporting.model_list import ClassifierSummary, ModelSummary, list_classifiers, list_models
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "models"
HELP = "list the PCA models and classifiers; promote, release, pin or unpin one"
_BAR_CELLS = 40
_BARS = 20
_EIGHTHS = " ▏▎▍▌▋▊▉█"

_CHANGES: dict[str, tuple[Callable[[Tables, Settings, str], bool], str, str, str]] = {
    "promote": (
        promote,
        "make a model the current one and hold it: no refit until `release`",
        "is current and held",
        "is already current and held",
    ),
    "pin": (pin, "keep a model alive: every batch gets rows of it, too", "is pinned", "is already pinned"),
    "unpin": (unpin, "make no more rows of a model, unless it is current", "is not pinned", "was not pinned"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions; the default is to list the models."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="list the models (the default)")
    listing.add_argument("--scree", metavar="ID", help="draw the spectrum of this PCA model instead of the current one's")
    for name, (_, text, _, _) in _CHANGES.items():
        actions.add_parser(name, help=text, description=text).add_argument(
            "id", metavar="ID", help="id of the model, or its first characters"
        )
    letting = actions.add_parser("release", help="let a kind of model be refitted again where that is worth it")
    letting.add_argument("kind", nargs="?", choices=tuple(KIND_OF_NAME), default=PCA.name, help="the kind (`pca` by default)")
    for action in actions.choices.values():
        # Suppressed, since a subparser's default would overwrite what the parser before it has read.
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """List or change models; the exit status is 0 even if there was nothing to do."""
    if arguments.action in (None, "list"):
        return _list(arguments, settings, tables)
    if arguments.action == "release":
        kind = KIND_OF_NAME[arguments.kind]
        is_changed, words, unchanged = release(tables, settings, kind), "is not held", "was not held"
        promotion = current_promotion(tables, settings.backbone.id, kind)
        model_id = promotion.model_id if promotion else ""
    else:
        change, _, words, unchanged = _CHANGES[arguments.action]
        model_id, _ = known_model(tables, settings.backbone.id, arguments.id)
        is_changed = change(tables, settings, model_id)
    if arguments.json:
        print(json.dumps({"model_id": model_id, "action": arguments.action, "is_changed": is_changed}))
    else:
        print(f"{model_id} {words}" if is_changed else f"{model_id} {unchanged}: nothing to do")
    return 0


def _list(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    backbone = settings.backbone.id
    models, classifiers = list_models(tables, backbone), list_classifiers(tables, backbone)
    if arguments.json:
        found = {"models": list(map(_as_json, models)), "classifiers": list(map(_as_json, classifiers))}
        print(json.dumps({"backbone": backbone} | found))
        return 0
    if models:
        _print_pca(arguments, tables, backbone, models)
    else:
        print(f"{backbone} has no model yet: pca_model fits one once images are published")
    if classifiers:
        head = ("classifier", "classes", "n", "batches", "created", "accuracy", "held out", "")
        print("\n" + format_table(head, list(map(_classifier_row, classifiers))))
    return 0


def _print_pca(arguments: argparse.Namespace, tables: Tables, backbone: str, models: Sequence[ModelSummary]) -> None:
    print(format_table(("model", "k", "n", "batches", "created", "captured", "gain", "distance", ""), list(map(_row, models))))
    wanted = known_model(tables, backbone, arguments.scree, (PCA,))[0] if getattr(arguments, "scree", None) else None
    for model in models:
        if model.model_id == wanted or (wanted is None and model.is_current):
            print("\n" + format_scree(model.model_id, model.explained_variance_ratio, sys.stdout.encoding))


def format_scree(title: str, ratios: Sequence[float], encoding: str | None = "utf-8") -> str:
    """Return a bar for each component, its share of the variance, and the cumulative share: at most 80 columns, no colour.

    The first 20 have bars, the others one line together. Bars are of `#` where the encoding has no block elements.
    """
    lines = [f"{title}: share of the variance by component, and together"]
    together = list(accumulate(ratios))
    for number, (ratio, sum_so_far) in enumerate(zip(ratios[:_BARS], together, strict=False), 1):
        lines.append(f"{number:>8}  {_bar(ratio / ratios[0], encoding):<{_BAR_CELLS}}  {ratio:7.2%}  {sum_so_far:7.2%}")
    if len(ratios) > _BARS:
        rest, numbers = sum(ratios[_BARS:]), f"{_BARS + 1}-{len(ratios)}"
        lines.append(f"{numbers:>8}  {'(without bars)':<{_BAR_CELLS}}  {rest:7.2%}  {together[-1]:7.2%}")
    return "\n".join(lines)


def _bar(part: float, encoding: str | None) -> str:
    eighths = round(part * _BAR_CELLS * 8)
    whole, rest = divmod(eighths, 8)
    bar = _EIGHTHS[8] * whole + (_EIGHTHS[rest] if rest else "")
    try:
        bar.encode(encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * round(part * _BAR_CELLS)
    return bar


def _row(model: ModelSummary) -> tuple[str, ...]:
    return (
        model.model_id,
        str(model.k),
        str(model.n),
        str(model.batches),
        f"{model.created_at:%Y-%m-%d}",
        "-" if model.captured is None else f"{model.captured:.1%}",
        "-" if model.gain is None else f"{model.gain:.4f}",
        "-" if model.distance is None else f"{model.distance:.4f}",
        _marks(model),
    )


def _classifier_row(model: ClassifierSummary) -> tuple[str, ...]:
    return (
        model.model_id,
        str(len(model.classes)),
        str(model.n),
        str(model.batches),
        f"{model.created_at:%Y-%m-%d}",
        f"{model.accuracy:.1%}",
        f"{model.held_out_rows} rows, by {model.held_out}",
        _marks(model),
    )


def _marks(model: ModelSummary | ClassifierSummary) -> str:
    return ", ".join(word for word in ("current", "held", "pinned") if getattr(model, f"is_{word}"))


def _as_json(model: ModelSummary | ClassifierSummary) -> dict[str, Any]:
    return asdict(model) | {"created_at": model.created_at.isoformat()}
