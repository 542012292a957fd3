"""Each rule of import-linter in pyproject.toml is kept, and breaks on every import that it forbids, planted in the graph."""

import re
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise, permutations
from typing import Any

import grimp
import pytest
from importlinter import Contract
from importlinter.configuration import configure
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.independence import IndependenceContract
from importlinter.contracts.layers import LayersContract
from support.repository import ROOT
from support.standard_library_contract import StandardLibraryContract

configure()
LINTER: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
KINDS: dict[str, type[Contract]] = {
    "layers": LayersContract,
    "forbidden": ForbiddenContract,
    "independence": IndependenceContract,
    "standard_library": StandardLibraryContract,
}
Rule = dict[str, Any]
every_rule = pytest.mark.parametrize("rule", LINTER["contracts"], ids=lambda rule: rule["name"].replace(" ", "_"))


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Every import of the product."""
    return grimp.build_graph(*LINTER["root_packages"], include_external_packages=True, cache_dir=None)


def is_kept(rule: Rule, imports: grimp.ImportGraph) -> bool:
    contract = KINDS[rule["type"]](
        name=rule["name"],
        session_options={"root_packages": LINTER["root_packages"], "include_external_packages": "true"},
        contract_options={key: value if isinstance(value, list) else str(value) for key, value in rule.items()},
    )
    return bool(contract.check(deepcopy(imports), verbose=False).kept)


def forbidden_by(rule: Rule) -> Iterator[tuple[str, str]]:
    """Yield (importer, imported) of imports that a rule forbids, at least one for each name in it."""
    if rule["type"] == "forbidden":
        yield from ((source, module) for source in rule["source_modules"] for module in rule["forbidden_modules"])
    elif rule["type"] == "standard_library":
        yield from ((source, module) for source in rule["source_modules"] for module in ("polars", "pyarrow", "airflow"))
        yield from ((source, "orchard_jobs.storage") for source in rule["source_modules"])
    elif rule["type"] == "independence":
        yield from permutations(rule["modules"], 2)
    else:
        layers = [[f"{rule['containers'][0]}.{name.strip()}" for name in layer.split("|")] for layer in rule["layers"]]
        yield from ((low, high) for upper, lower in pairwise(layers) for low in lower for high in upper)
        yield from (pair for layer in layers for pair in permutations(layer, 2))


@every_rule
def test_a_rule_is_kept(rule: Rule, imports: grimp.ImportGraph) -> None:
    assert is_kept(rule, imports)


@every_rule
def test_a_rule_breaks_on_each_import_that_it_forbids(rule: Rule, imports: grimp.ImportGraph) -> None:
    unseen = []
    for importer, imported in forbidden_by(rule):
        planted = deepcopy(imports)
        if imported not in planted.modules:
            planted.add_module(imported, is_squashed=True)
        planted.add_import(importer=importer, imported=imported)
        unseen += [f"{importer} -> {imported}"] if is_kept(rule, planted) else []
    assert unseen == []


@pytest.mark.parametrize("package", LINTER["root_packages"])
def test_a_module_in_no_layer_breaks_a_rule(package: str, imports: grimp.ImportGraph) -> None:
    (rule,) = [rule for rule in LINTER["contracts"] if rule.get("containers") == [package]]
    planted = deepcopy(imports)
    planted.add_module(f"{package}.placed_nowhere")
    assert not is_kept(rule, planted)


def layers_in(page: str) -> list[list[set[str]]]:
    """Return the names in each cell of the table of layers, column by column, without notes in parentheses."""
    table = re.search(r"\| `orchard_jobs` \| `orchard` \|\n\|[-|]+\n((?:\|.*\n)+)", page)
    rows = [re.sub(r" \(.*?\)", "", row).strip("|").split("|") for row in table[1].splitlines()] if table else []
    return [[set(cell.strip().split(", ")) for cell in column if cell.strip()] for column in zip(*rows, strict=True)]


def test_the_page_shows_the_layers_that_are_checked() -> None:
    rules = [rule for rule in LINTER["contracts"] if rule["type"] == "layers"]
    checked = {rule["containers"][0]: [set(layer.split(" | ")) for layer in rule["layers"]] for rule in rules}
    shown = layers_in((ROOT / "docs" / "architecture.md").read_text())
    assert shown == [checked["orchard_jobs"], checked["orchard"]]
