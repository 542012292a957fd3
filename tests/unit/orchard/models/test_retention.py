"""Rows of models that nobody chose go after a while, and come back when the model does."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from orchard.models.refit import pending_work
from orchard.models.registry import pin, promote, unpin
from orchard.models.retention import expire_models, expired_models
from orchard.settings import Settings
from orchard.tables.batch_versions import version_key
from orchard.tables.commit_rule import Tables, version_number_in
from orchard_jobs.contract.columns import MODELS, PCA_FEATURES, PINS
from support.changed_settings import with_variables
from support.faked_flow import decision_of, project_model, publish_projected, rows, run_model
from support.published_batches import DAYS, images_of, publish_days, published_images


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def numbers(tables: Tables, model_id: str) -> list[int]:
    snapshot = tables.load(PCA_FEATURES)
    return [version_number_in(snapshot, version_key(model_id, day)) for day in DAYS[:3]]


def choose_at(moment: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    class At(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "At":
            return cls.fromtimestamp(moment.timestamp(), tz)

    monkeypatch.setattr("orchard.models.registry.datetime", At)


def test_a_model_expires_when_it_was_succeeded_long_enough_ago(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    assert expired_models(tables, always, in_days(29.9)) == ()
    assert expired_models(tables, always, in_days(30.1)) == (models[0],)
    assert expired_models(tables, with_variables(always, ORCHARD_MODEL_RETENTION_DAYS=0.0), in_days(0)) == (models[0],)


def test_the_days_run_from_the_last_use(
    tables: Tables, always: Settings, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(tables, always, models[0])
    assert expired_models(tables, always, in_days(999)) == ()
    choose_at(in_days(100), monkeypatch)
    unpin(tables, always, models[0])
    assert expired_models(tables, always, in_days(129)) == ()
    assert expired_models(tables, always, in_days(131)) == (models[0],)
    choose_at(in_days(200), monkeypatch)
    promote(tables, always, models[0])
    assert expired_models(tables, always, in_days(229)) == ()
    assert expired_models(tables, always, in_days(231)) == (models[1],)


def test_a_model_that_lost_its_promotion_expires_from_its_fit(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    publish_days(tables, always, DAYS[2])
    planned = project_model(tables, always)
    promote(tables, always, models[0])
    with pytest.raises(Exception, match="promoted meanwhile"):
        publish_projected(tables, planned, "slow")
    assert expired_models(tables, always, in_days(29)) == ()
    assert decision_of(tables, planned).model_id in expired_models(tables, always, in_days(31))


def test_retired_rows_go_in_one_commit_and_all_else_stays(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    kept, version, fitted = images_of(tables, models[1]), tables.load(PCA_FEATURES).version, rows(tables, MODELS)
    assert expire_models(tables, [models[0]]) == (models[0],)
    assert tables.load(PCA_FEATURES).version == version + 1
    assert (images_of(tables, models[0]), images_of(tables, models[1])) == (set(), kept)
    assert numbers(tables, models[0]) == [0, 0, 0]
    assert rows(tables, MODELS) == fitted
    assert expired_models(tables, always, in_days(999)) == ()
    assert expire_models(tables, [models[0]]) == ()
    assert tables.load(PCA_FEATURES).version == version + 1


def test_a_chosen_model_is_never_retired(tables: Tables, always: Settings, models: tuple[str, str]) -> None:
    pin(tables, always, models[0])
    before = rows(tables, PCA_FEATURES)
    assert expire_models(tables, models) == ()
    assert rows(tables, PCA_FEATURES) == before


@pytest.mark.parametrize("choose", [promote, pin])
def test_a_retired_model_that_is_chosen_again_gets_all_its_rows_back(
    tables: Tables, always: Settings, models: tuple[str, str], choose: Any
) -> None:
    run_model(tables, always, "whole")
    before = [row for row in rows(tables, PCA_FEATURES) if row["model_id"] == models[0]]
    expire_models(tables, [models[0]])
    choose(tables, always, models[0])
    assert "lacks 2 of 2 batches" in str(pending_work(tables, always))
    run_model(tables, always, "back")
    assert [row for row in rows(tables, PCA_FEATURES) if row["model_id"] == models[0]] == before
    assert pending_work(tables, always) is None


def test_rows_that_are_published_after_the_retirement_are_found_again(
    tables: Tables, always: Settings, models: tuple[str, str]
) -> None:
    pin(tables, always, models[0])
    publish_days(tables, always, DAYS[2])
    planned = project_model(tables, always)
    unpin(tables, always, models[0])
    expire_models(tables, [models[0]])
    publish_projected(tables, planned, "slow")
    assert images_of(tables, models[0]) != set()
    assert models[0] in expired_models(tables, always, in_days(31))
    expire_models(tables, [models[0]])
    assert images_of(tables, models[0]) == set()
    assert numbers(tables, models[0]) == [0, 0, 0]


def test_a_model_that_is_promoted_while_its_rows_go_is_projected_anew(
    tables: Tables, always: Settings, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Tables.load

    def load(self: Tables, table: Any, version: int | None = None) -> Any:
        """Promote at the last moment: after the retirement has looked at the choices, before it commits."""
        if table is PCA_FEATURES:
            monkeypatch.setattr(Tables, "load", real)
            promote(tables, always, models[0])
        return real(self, table, version)

    monkeypatch.setattr(Tables, "load", load)
    assert expire_models(tables, [models[0]]) == (models[0],)
    assert pending_work(tables, always) == "the current model lacks 2 of 2 batches"
    run_model(tables, always, "next")
    assert images_of(tables, models[0]) == published_images(tables)


def test_a_retirement_and_a_publish_at_once_leave_numbers_that_agree(
    tables: Tables, always: Settings, models: tuple[str, str]
) -> None:
    pin(tables, always, models[0])
    publish_days(tables, always, DAYS[2])
    planned = project_model(tables, always)
    unpin(tables, always, models[0])
    with ThreadPoolExecutor(2) as pool:
        published = pool.submit(publish_projected, tables, planned)
        retired = pool.submit(expire_models, tables, [models[0]])
        published.result()
        retired.result()
    with_rows = {batch_id for batch_id in DAYS[:3] if list(tables.rows(PCA_FEATURES, model_id=models[0], batch_id=batch_id))}
    assert with_rows == {day for day, number in zip(DAYS, numbers(tables, models[0]), strict=False) if number}
    assert len(images_of(tables, models[0])) == len(list(tables.rows(PCA_FEATURES, model_id=models[0])))
    assert len(rows(tables, PINS)) == 2
