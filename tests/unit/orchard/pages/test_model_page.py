"""The page Models: each model with what it was merged from and explains, and the promotions, as the tables hold them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from orchard.models.registry import pin, promote
from orchard.reporting.view_refresh import refresh_view
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import MODELS, PROMOTIONS
from support.logged_in import Visitor
from support.published_batches import DAYS, publish_days

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def shown(settings: Settings) -> dict[str, Any]:
    answer = Visitor.of(settings).user.get("/api/models")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_models_come_newest_first_with_what_they_were_merged_from(
    tables: Tables, always: Settings, models: tuple[str, str]
) -> None:
    refresh_view(tables, always, NOW)
    newest, oldest = shown(always)["models"]
    assert (newest["model_id"], oldest["model_id"]) == (models[1], models[0])
    assert [(one["batches"], one["first_batch"], one["last_batch"]) for one in (newest, oldest)] == [
        (2, DAYS[0], DAYS[1]),
        (1, DAYS[0], DAYS[0]),
    ]
    chosen = [(one["is_current"], one["is_held"], one["is_pinned"]) for one in (newest, oldest)]
    assert chosen == [(True, False, False), (False, False, False)]
    held = {row["model_id"]: row for row in tables.rows(MODELS)}
    for one in (newest, oldest):
        assert {name: one[name] for name in ("k", "n", "explained_variance_ratio")} == {
            name: held[one["model_id"]][name] for name in ("k", "n", "explained_variance_ratio")
        }


def test_promotions_come_newest_first_as_the_table_holds_them(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    promote(tables, always, models[0])
    pin(tables, always, models[1])
    refresh_view(tables, always, NOW)
    found = shown(always)
    held = sorted(tables.rows(PROMOTIONS), key=lambda row: int(row["sequence"]), reverse=True)
    same = ("sequence", "model_id", "predecessor", "reason", "gain", "distance", "is_held")
    assert [[row[name] for name in same] for row in found["promotions"]] == [[row[name] for name in same] for row in held]
    chosen = {one["model_id"]: (one["is_current"], one["is_held"], one["is_pinned"]) for one in found["models"]}
    assert chosen == {models[0]: (True, True, False), models[1]: (False, False, True)}


@pytest.mark.parametrize("has_new_models", [True, False])
def test_a_batch_alone_lets_the_models_be(
    tables: Tables, always: Settings, models: tuple[str, str], has_new_models: bool
) -> None:
    before = refresh_view(tables, always, NOW)
    promote(tables, always, models[0])
    publish_days(tables, always, DAYS[2])
    after = refresh_view(tables, always, NOW, has_new_models=has_new_models)
    assert after.versions != before.versions
    assert (after.promotions != before.promotions) == has_new_models


def test_a_backbone_without_a_model_has_none(tables: Tables, settings: Settings) -> None:
    publish_days(tables, settings, DAYS[0])
    refresh_view(tables, settings, NOW)
    found = shown(settings)
    assert (found["models"], found["promotions"]) == ([], [])
