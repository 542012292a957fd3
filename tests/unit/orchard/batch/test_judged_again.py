"""A plan judges quarantine rows again when the next run may decide otherwise."""

from typing import Any

import pytest
from orchard.settings import Settings
from orchard.settings.groups import ImageSettings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.columns import FEATURES, QUARANTINE
from orchard_jobs.contract.manifest import Entry, ManifestHead
from support.changed_settings import with_variables
from support.fake_jobs import BROKEN, FakeJobs
from support.faked_flow import plan, run_batch, stage_and_publish
from support.planning import DAY, key, runs_row


def test_a_vanished_image_is_computed_by_the_next_run(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a", key("slow.jpg"): b"slow"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    run_batch_with_vanished(tables, settings, bucket)
    assert [row["reason"] for row in tables.rows(QUARANTINE)] == ["vanished"]
    run_batch(tables, settings, DAY, bucket)
    assert list(tables.rows(QUARANTINE)) == []
    assert len(list(tables.rows(FEATURES))) == 2


def test_a_vanished_row_that_is_no_longer_listed_is_dropped(tables: Tables, settings: Settings) -> None:
    run_batch_with_vanished(tables, settings, {key("a.jpg"): b"a", key("slow.jpg"): b"slow"})
    run_batch(tables, settings, DAY, {key("a.jpg"): b"a", key("late.jpg"): b"late"})
    assert list(tables.rows(QUARANTINE)) == []
    assert runs_row(tables, 2)["missing"] == 0


def run_batch_with_vanished(tables: Tables, settings: Settings, bucket: dict[str, bytes]) -> None:
    """Run a batch whose image `slow.jpg` goes between the listing and the job."""
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    stage_and_publish(tables, head, FakeJobs(tables, {k: v for k, v in bucket.items() if "slow" not in k}))


def test_rows_over_the_pixel_limit_are_judged_again_when_it_rose(tables: Tables, settings: Settings) -> None:
    bucket = {key("huge.jpg"): BROKEN}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    jobs = _OverLimitJobs(tables, bucket)
    stage_and_publish(tables, head, jobs)
    assert plan(tables, settings, DAY, bucket) is None
    assert plan(tables, with_variables(settings, ORCHARD_PIXEL_LIMIT=settings.images.pixel_limit - 1), DAY, bucket) is None
    raised = plan(tables, with_variables(settings, ORCHARD_PIXEL_LIMIT=settings.images.pixel_limit + 1), DAY, bucket)
    assert raised is not None
    assert raised.actions == {"compute": 1}


def test_unsupported_rows_are_judged_again_once_heic_is_read(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = {key("phone.heic"): BROKEN}
    monkeypatch.setattr(ImageSettings, "reads_heic", False)
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    stage_and_publish(tables, head, _UnsupportedJobs(tables, bucket))
    assert plan(tables, settings, DAY, bucket) is None
    monkeypatch.setattr(ImageSettings, "reads_heic", True)
    again = plan(tables, settings, DAY, bucket)
    assert again is not None
    assert again.actions == {"compute": 1}
    stage_and_publish(tables, again, _UnsupportedJobs(tables, bucket))
    assert plan(tables, settings, DAY, bucket) is None


def test_a_missing_image_over_the_old_limit_is_judged_when_it_comes_back(tables: Tables, settings: Settings) -> None:
    bucket = {key("huge.jpg"): BROKEN, key("a.jpg"): b"a"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    stage_and_publish(tables, head, _OverLimitJobs(tables, bucket))
    raised = with_variables(settings, ORCHARD_PIXEL_LIMIT=settings.images.pixel_limit + 1)
    for content in (b"another", b"a third"):  # twice: the row is kept as a missing one's, too
        run_batch(tables, raised, DAY, {key("a.jpg"): content})
    assert [row["reason"] for row in tables.rows(QUARANTINE)] == ["over the pixel limit"]
    back = {key("huge.jpg"): BROKEN, key("a.jpg"): b"a third"}
    found = plan(tables, raised, DAY, back)
    assert found is not None
    assert found.actions == {"compute": 1, "keep": 1}
    run_batch(tables, raised, DAY, back)
    assert plan(tables, raised, DAY, back) is None


def test_rows_over_the_size_limit_are_judged_again_when_it_rose(tables: Tables, settings: Settings) -> None:
    bucket = {key("large.jpg"): b"12345", key("small.jpg"): b"1234"}
    small = with_variables(settings, ORCHARD_OBJECT_LIMIT=4)
    run_batch(tables, small, DAY, bucket)
    (row,) = tables.rows(QUARANTINE)
    assert (row["reason"], row["message"]) == ("over the size limit", "5 bytes, the limit is 4")
    for lower in (4, 3):
        assert plan(tables, with_variables(settings, ORCHARD_OBJECT_LIMIT=lower), DAY, bucket) is None
    run_batch(tables, settings, DAY, bucket)
    assert list(tables.rows(QUARANTINE)) == []
    assert len(list(tables.rows(FEATURES))) == 2


def test_a_staged_version_of_another_size_limit_is_not_gone_on_with(tables: Tables, settings: Settings) -> None:
    bucket = {key("a.jpg"): b"a"}
    begun = plan(tables, settings, DAY, bucket)
    assert begun is not None
    FakeJobs(tables, bucket).featurize(begun)
    other = plan(tables, with_variables(settings, ORCHARD_OBJECT_LIMIT=9), DAY, bucket)
    assert other is not None
    assert (other.digest != begun.digest, plan(tables, settings, DAY, bucket)) == (True, begun)


class _OverLimitJobs(FakeJobs):
    def _compute(self, head: ManifestHead, entry: Entry, reused: Any, good: list[Any], bad: list[Any], stamp: Any) -> None:
        super()._compute(head, entry, reused, good, bad, stamp)
        if bad:
            bad[-1]["reason"] = "over the pixel limit"


class _UnsupportedJobs(FakeJobs):
    def _compute(self, head: ManifestHead, entry: Entry, reused: Any, good: list[Any], bad: list[Any], stamp: Any) -> None:
        super()._compute(head, entry, reused, good, bad, stamp)
        if bad:
            bad[-1]["reason"] = "unsupported mode or format"
