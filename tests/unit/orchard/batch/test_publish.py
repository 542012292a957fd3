"""publish: one set of rows whoever comes first, whoever is killed, however often it is run."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable
from orchard.batch.publish import RunFacts, publish_batch
from orchard.models.model import current_promotion
from orchard.settings import Settings
from orchard.tables.batch_versions import current_versions, readable_versions
from orchard.tables.commit_rule import Change, CommitState, Tables
from orchard_jobs.contract.columns import CAPTURED, FEATURES, PCA_FEATURES, QUARANTINE, RUNS
from orchard_jobs.errors import JobError, SupersededError
from support.fake_jobs import BROKEN, FakeJobs
from support.faked_flow import plan, project_model, rows, run_batch, run_model, stage_and_publish
from support.faults import killed_after

DAY = "2026-01-01"
FACTS = RunFacts("run", "local", "passed")


def bucket_of(day: str = DAY, count: int = 6, salt: str = "") -> dict[str, bytes]:
    images = {f"images/{day}/apple/{n}.jpg": f"{day}{n}{salt}".encode() for n in range(count)}
    return images | {f"images/{day}/apple/broken.jpg": BROKEN + salt.encode()}


def test_two_runs_of_one_new_batch_make_one_set_of_rows(tables: Tables, settings: Settings) -> None:
    """One may plan when the other's job has ended already: it plans another manifest then, and one of the two is superseded."""

    def is_published(run: str) -> bool:
        try:
            run_batch(tables, settings, DAY, bucket_of(), run)
        except SupersededError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert any(list(pool.map(is_published, ["one", "two"])))
    assert len(list(tables.rows(FEATURES))) == 6
    assert len(list(tables.rows(QUARANTINE))) == 1
    assert len(list(tables.rows(RUNS))) == 1


def test_each_of_eight_batches_is_published_by_one_of_two_rivals(tables: Tables, settings: Settings) -> None:
    days = [f"2026-01-0{n}" for n in range(1, 9)]

    def attempt(job: tuple[str, str]) -> None:
        day, salt = job
        head = plan(tables, settings, day, bucket_of(day, salt=salt))
        assert head is not None
        heads.append(head.digest)
        try:
            stage_and_publish(tables, head, FakeJobs(tables, bucket_of(day, salt=salt)))
        except SupersededError:
            lost.append(day)

    heads: list[str] = []
    lost: list[str] = []
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(attempt, [(day, salt) for day in days for salt in ("x", "y")]))
    versions = readable_versions(tables, settings.backbone.id)
    assert [version.batch_id for version in versions] == days
    assert len(list(tables.rows(FEATURES))) == 8 * 6
    current = {version.batch_id: version.manifest_digest for version in current_versions(tables, settings.backbone.id)}
    for day in days:
        (digest,) = {row["manifest_digest"] for row in tables.rows(FEATURES, batch_id=day)}
        assert current[day] == digest
    assert len(heads) == 16


def test_a_published_version_published_again_changes_nothing(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, bucket_of())
    run_model(tables, settings)
    bucket = bucket_of() | {f"images/{DAY}/apple/late.jpg": b"late"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    for _ in range(3):
        stage_and_publish(tables, head, FakeJobs(tables, bucket))
        found = [rows(tables, table) for table in (FEATURES, QUARANTINE, PCA_FEATURES, RUNS, CAPTURED)]
        assert [len(part) for part in found] == [7, 1, 7, 2, 2]
        promotion = current_promotion(tables, settings.backbone.id)
        assert promotion is not None
        by_version = {row["version"]: row for row in tables.rows(RUNS)}
        assert [by_version[number]["model_id"] for number in (1, 2)] == [None, promotion.model_id]
        (file,) = tables.load(PCA_FEATURES, by_version[2]["pca_version"]).files(model_id=promotion.model_id, batch_id=DAY)
        assert {row["manifest_digest"] for row in tables.rows_of([file])} == {head.digest}


@pytest.mark.parametrize("commits", range(5))
@pytest.mark.parametrize("is_retried", [True, False])
def test_a_kill_between_any_two_commits_rolls_forward(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, commits: int, is_retried: bool
) -> None:
    run_batch(tables, settings, DAY, bucket_of())
    run_model(tables, settings)
    bucket = bucket_of() | {f"images/{DAY}/apple/late.jpg": b"late", f"images/{DAY}/apple/late-broken.jpg": BROKEN + b"2"}
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    jobs = FakeJobs(tables, bucket)
    with killed_after(commits, monkeypatch):
        stage_and_publish(tables, head, jobs)
    if is_retried:
        stage_and_publish(tables, head, jobs)
    else:
        again = run_batch(tables, settings, DAY, bucket, "new run")
        assert again.network_runs == []
    found = [len(rows(tables, table)) for table in (FEATURES, QUARANTINE, PCA_FEATURES, CAPTURED, RUNS)]
    assert found == [7, 2, 7, 2, 2]
    (digest,) = {row["manifest_digest"] for row in tables.rows(FEATURES)}
    assert digest == head.digest
    assert plan(tables, settings, DAY, bucket) is None


@pytest.mark.parametrize("commits", range(5))
def test_the_runs_row_comes_last_and_the_rows_set_aside_first(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """A kill leaves no image without a row: it stands among those set aside before it stands no more among the good."""
    run_batch(tables, settings, DAY, bucket_of())
    run_model(tables, settings)
    head = plan(tables, settings, DAY, bucket_of(salt="new"))
    assert head is not None
    with killed_after(commits, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, bucket_of(salt="new")))
    order = (QUARANTINE, FEATURES, CAPTURED, PCA_FEATURES, RUNS)
    written = [any(row["manifest_digest"] == head.digest for row in tables.rows(table)) for table in order]
    assert written == [position < commits for position in range(5)]


def test_a_runs_row_tells_of_both_jobs(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, bucket_of())
    run_model(tables, settings)
    bucket = bucket_of(salt="new")
    head = plan(tables, settings, DAY, bucket)
    assert head is not None
    jobs = FakeJobs(tables, bucket)
    featurized = jobs.featurize(head)
    reduced = jobs.reduce(head, featurized)
    assert reduced is not None
    featurized = replace(featurized, job_id="job-1", seconds={"network": 1.5, "write": 2.0})
    publish_batch(tables, head, featurized, replace(reduced, job_id="job-2", seconds={"project": 0.25}), FACTS)
    (row,) = [row for row in tables.rows(RUNS) if row["version"] == 2]
    told = {name: row[name] for name in ("run_id", "target", "audit_verdict", "job_ids", "featurize_seconds", "reduce_seconds")}
    assert told == {
        "run_id": "run",
        "target": "local",
        "audit_verdict": "passed",
        "job_ids": ["job-1", "job-2"],
        "featurize_seconds": 3.5,
        "reduce_seconds": 0.25,
    }


@pytest.mark.parametrize("commits", range(3))
@pytest.mark.parametrize("is_first", [True, False])
def test_a_kill_rolls_forward_without_any_quarantine_row(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, commits: int, is_first: bool
) -> None:
    clean = {key: content for key, content in bucket_of().items() if "broken" not in key}
    if not is_first:
        run_batch(tables, settings, DAY, dict(list(clean.items())[:3]))
    head = plan(tables, settings, DAY, clean)
    assert head is not None
    with killed_after(commits, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, clean))
    again = run_batch(tables, settings, DAY, clean, "new run")
    assert again.network_runs == []
    assert {row["manifest_digest"] for row in tables.rows(FEATURES)} == {head.digest}
    assert max(row["version"] for row in tables.rows(RUNS)) == head.number
    assert plan(tables, settings, DAY, clean) is None


@pytest.mark.parametrize("is_listed", [True, False])
def test_an_image_that_had_vanished_is_never_lost_by_a_kill(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_listed: bool
) -> None:
    clean = {f"images/{DAY}/apple/{n}.jpg": f"{n}".encode() for n in range(6)} | {f"images/{DAY}/apple/slow.jpg": b"slow"}
    first = plan(tables, settings, DAY, clean)
    assert first is not None
    stage_and_publish(tables, first, FakeJobs(tables, {key: content for key, content in clean.items() if "slow" not in key}))
    second = plan(tables, settings, DAY, clean)
    assert second is not None
    with killed_after(1, monkeypatch):
        stage_and_publish(tables, second, FakeJobs(tables, clean))
    after = clean if is_listed else {key: content for key, content in clean.items() if "slow" not in key}
    run_batch(tables, settings, DAY, after, "new run")
    assert {row["image_uri"].removeprefix("s3://landing/") for row in tables.rows(FEATURES)} == set(after)
    assert rows(tables, QUARANTINE) == []
    assert plan(tables, settings, DAY, after) is None


def test_a_version_left_half_way_is_superseded_when_the_listing_changed(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = plan(tables, settings, DAY, bucket_of())
    assert head is not None
    with killed_after(2, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, bucket_of()))
    bucket = bucket_of() | {f"images/{DAY}/apple/late.jpg": b"late"}
    jobs = run_batch(tables, settings, DAY, bucket)
    assert len(jobs.network_runs) == 1
    assert len(rows(tables, FEATURES)) == 7
    with pytest.raises(SupersededError, match="later run of the batch has already published"):
        stage_and_publish(tables, head, FakeJobs(tables, bucket_of()))
    assert len(rows(tables, FEATURES)) == 7
    assert [row["version"] for row in tables.rows(RUNS)] == [2]


def test_image_batches_and_pca_model_publish_one_batch_at_once(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, bucket_of())
    run_model(tables, settings)
    bucket = bucket_of(count=9)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(run_batch, tables, settings, DAY, bucket).result()
        fitted = pool.submit(run_model, tables, settings, "a")
        grown = pool.submit(run_batch, tables, settings, DAY, bucket_of(count=12))
        fitted.result()
        grown.result()
    run_model(tables, settings, "b")
    assert len(rows(tables, FEATURES)) == 12
    for model in {row["model_id"] for row in tables.rows(PCA_FEATURES)}:
        uris = [row["image_uri"] for row in tables.rows(PCA_FEATURES, model_id=model)]
        assert len(uris) == len(set(uris))
    (digest,) = {row["manifest_digest"] for row in tables.rows(FEATURES)}
    assert digest in {row["manifest_digest"] for row in tables.rows(PCA_FEATURES)}


def test_a_staged_file_that_is_gone_or_damaged_is_never_published(tables: Tables, settings: Settings) -> None:
    head = plan(tables, settings, DAY, bucket_of())
    assert head is not None
    report = FakeJobs(tables, bucket_of()).featurize(head)
    path = Path(tables.warehouse.uri.removeprefix("file://")) / report.of_table("features")[0].files[0].path
    os.truncate(path, 10)
    with pytest.raises(JobError, match="has 10 bytes, its report says"):
        publish_batch(tables, head, report, None, FACTS)
    path.unlink()
    with pytest.raises(JobError, match="has None bytes"):
        publish_batch(tables, head, report, None, FACTS)
    assert rows(tables, FEATURES) == rows(tables, RUNS) == []


def test_a_new_run_stages_lost_or_damaged_files_anew(tables: Tables, settings: Settings) -> None:
    head = plan(tables, settings, DAY, bucket_of())
    assert head is not None
    report = FakeJobs(tables, bucket_of()).featurize(head)
    assert plan(tables, settings, DAY, bucket_of()) == head
    path = Path(tables.warehouse.uri.removeprefix("file://")) / report.of_table("features")[0].files[0].path
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = run_batch(tables, settings, DAY, bucket_of())
    assert len(again.network_runs) == 6
    assert [row["version"] for row in tables.rows(RUNS)] == [2]
    assert plan(tables, settings, DAY, bucket_of()) is None


def test_a_model_run_stages_lost_files_anew(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, bucket_of())
    report = project_model(tables, settings).required_report(tables.warehouse, "project")
    (Path(tables.warehouse.uri.removeprefix("file://")) / report.partitions[0].files[0].path).unlink()
    again = run_model(tables, settings)
    assert again.projection is not None
    assert again.projection.attempt == 2
    assert len(rows(tables, PCA_FEATURES)) == 6


def test_a_batch_without_a_good_image_publishes_its_quarantine(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, {f"images/{DAY}/apple/x.jpg": BROKEN})
    assert len(rows(tables, QUARANTINE)) == 1
    assert rows(tables, FEATURES) == []
    assert len(rows(tables, RUNS)) == 1


def test_the_log_holds_no_file_name_and_no_label(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, {f"images/{DAY}/secret-label/secret-name.jpg": b"x"})
    logs = Path(tables.warehouse.uri.removeprefix("file://")).glob("*/_delta_log/*.json")
    text = "".join(path.read_text() for path in logs)
    assert "batch:" in text
    assert "secret" not in text


def test_tables_are_readable_by_old_readers(tables: Tables) -> None:
    protocol = DeltaTable(tables.warehouse.uri_of("features")).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)


def test_a_change_stands_to_a_table_by_number_and_digest(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAY, bucket_of())
    (version,) = readable_versions(tables, settings.backbone.id)
    snapshot = tables.load(FEATURES)
    key = f"{settings.backbone.id}/{DAY}"
    assert Change(key, 2, "0" * 64).state_in(snapshot) is CommitState.BEHIND
    assert Change(key, 1, version.manifest_digest).state_in(snapshot) is CommitState.DONE
    assert Change(key, 1, "0" * 64).state_in(snapshot) is CommitState.SUPERSEDED
    assert Change("another/batch", 1, "0" * 64).state_in(snapshot) is CommitState.BEHIND
