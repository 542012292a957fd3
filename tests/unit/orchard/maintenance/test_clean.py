"""clean: what is in use stays, whatever is cut off, whoever runs beside it; what nothing needs goes, reports first."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from orchard.batch.publish import RunFacts, publish_batch
from orchard.maintenance import clean as cleaning
from orchard.maintenance.clean import KINDS, Removal, plan_cleaning, remove
from orchard.models.model import current_promotion
from orchard.models.refit import pending_work, plan_model, publish_model
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.columns import FEATURES, MODELS, PCA_FEATURES, QUARANTINE, RUNS, TABLES
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.layout import backbone_path, progress_folder, report_path
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse
from support.fake_jobs import BROKEN, FakeJobs
from support.faults import killed_after
from support.flow import plan, project_model, publish_projected, rows, run_batch, run_model, stage_and_publish
from support.settings import with_variables
from support.warehouse_files import age, root_of, stored

WEEK = timedelta(days=7)
DAYS = ("2026-01-01", "2026-01-02")
FACTS = RunFacts("run", "local", "passed")
Bucket = dict[str, bytes]


def bucket_of(day: str, salt: str = "") -> Bucket:
    images = {f"images/{day}/apple/{n}.jpg": f"{day}{n}{salt}".encode() for n in range(6)}
    return images | {f"images/{day}/apple/broken.jpg": BROKEN + salt.encode()}


def clean(tables: Tables, settings: Settings, retention: timedelta = WEEK) -> tuple[Removal, ...]:
    removals = plan_cleaning(tables, settings, datetime.now(UTC), retention)
    remove(tables, removals, retention)
    return removals


def contents(tables: Tables) -> list[list[dict[str, Any]]]:
    return [rows(tables, table) for table in TABLES]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that uses `used` puts it, for the others to copy."""
    return tmp_path_factory.mktemp("used") / "warehouse"


@pytest.fixture
def used(tables: Tables, settings: Settings, kept: Path) -> Tables:
    """Two published batches, the first in its fourth version, which kept rows; two models; a version that its audit refused."""
    here = root_of(tables)
    if kept.exists():
        shutil.copytree(kept, here, dirs_exist_ok=True)
        return tables
    for day in DAYS:
        run_batch(tables, settings, day, bucket_of(day))
    run_model(tables, settings)
    for salt in ("other", "new"):
        run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], salt))
    late = {f"images/{DAYS[0]}/pear/late.jpg": b"late"}
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], "new") | late)
    run_model(tables, with_variables(settings, ORCHARD_COMPONENTS=2), "second")
    stage_refused(tables, settings)
    shutil.copytree(here, kept)
    return tables


def stage_refused(tables: Tables, settings: Settings) -> ManifestHead:
    """Stage a version and leave it unpublished, as an audit does that refuses it."""
    bucket = bucket_of(DAYS[1]) | {f"images/{DAYS[1]}/apple/late.jpg": b"late"}
    head = plan(tables, settings, DAYS[1], bucket)
    assert head is not None
    jobs = FakeJobs(tables, bucket)
    jobs.reduce(head, jobs.featurize(head))
    return head


def check_whole(tables: Tables, settings: Settings, before: list[list[dict[str, Any]]]) -> None:
    """Every published row is there, and what comes next is planned, computed and published as ever."""
    assert contents(tables) == before
    assert plan(tables, settings, DAYS[0], bucket_of(DAYS[0], "new")) is None
    later = bucket_of(DAYS[0], "new") | {f"images/{DAYS[0]}/apple/later.jpg": b"later"}
    assert len(run_batch(tables, settings, DAYS[0], later, "later").network_runs) == 1
    assert len(list(tables.rows(FEATURES, batch_id=DAYS[0]))) == 8
    run_model(tables, with_variables(settings, ORCHARD_COMPONENTS=2), "later")
    assert pending_work(tables, with_variables(settings, ORCHARD_COMPONENTS=2)) is None


def test_nothing_young_goes(used: Tables, settings: Settings) -> None:
    before = stored(used)
    assert clean(used, settings) == ()
    assert stored(used) == before


def test_two_rounds_remove_all_that_nothing_needs(used: Tables, settings: Settings) -> None:
    before = contents(used)
    age(used)
    first = clean(used, settings)
    assert {removal.kind for removal in first} == {"report", "plan", "scratch"}
    age(used)
    second = clean(used, settings)
    assert {removal.kind for removal in second} == {"manifest", "replaced", "staged", "note"}
    age(used)
    assert clean(used, settings) == ()
    named = {file.path for table in TABLES for file in used.load(table).files()}
    left = {path for path in stored(used) if "/_delta_log/" not in path}
    current = {row["manifest_digest"] for row in used.rows(FEATURES)}
    assert {path for path in left if not path.startswith("_work/")} == named
    assert {path.split("/")[2] for path in left - named if path.startswith("_work/manifests/")} == current
    assert all(path.startswith("_work/manifests/") for path in left - named)
    check_whole(used, settings, before)


def test_without_a_retention_all_goes_at_once(used: Tables, settings: Settings) -> None:
    before = contents(used)
    kinds = [removal.kind for removal in clean(used, settings, timedelta(0))]
    assert kinds == sorted(kinds, key=KINDS.index)
    assert set(kinds) == {"report", "plan", "manifest", "replaced", "staged", "scratch"}
    assert clean(used, settings, timedelta(0)) == ()
    check_whole(used, settings, before)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@contextmanager
def killed_at(number: int) -> Iterator[None]:
    """Kill the block at the removal or note of this number."""
    done: list[tuple[Any, ...]] = []

    def counted(real: Any) -> Any:
        def call(self: Warehouse, *arguments: Any) -> None:
            if len(done) == number:
                raise Killed
            done.append(arguments)
            real(self, *arguments)

        return call

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        for name in ("delete", "rewrite"):
            patch.setattr(Warehouse, name, counted(getattr(Warehouse, name)))
        yield


@pytest.mark.parametrize("retention", [WEEK, timedelta(0)])
def test_a_kill_between_any_two_removals_harms_nothing(used: Tables, settings: Settings, retention: timedelta) -> None:
    before = contents(used)
    age(used)
    removals = plan_cleaning(used, settings, datetime.now(UTC), retention)
    assert len(removals) > 10
    for number in range(len(removals)):
        with killed_at(number):
            clean(used, settings, retention)
        assert contents(used) == before
        assert plan(used, settings, DAYS[0], bucket_of(DAYS[0], "new")) is None
    for _ in range(2):
        clean(used, settings, retention)
        age(used)
    assert clean(used, settings, retention) == ()
    check_whole(used, settings, before)


@pytest.mark.parametrize("number", range(6))
def test_a_version_that_was_refused_is_made_anew_after_any_kill(used: Tables, settings: Settings, number: int) -> None:
    age(used)
    with killed_at(number):
        clean(used, settings, timedelta(0))
    head = stage_refused(used, settings)
    bucket = bucket_of(DAYS[1]) | {f"images/{DAYS[1]}/apple/late.jpg": b"late"}
    stage_and_publish(used, head, FakeJobs(used, bucket))
    assert {row["manifest_digest"] for row in used.rows(FEATURES, batch_id=DAYS[1])} == {head.digest}
    assert len(list(used.rows(FEATURES, batch_id=DAYS[1]))) == 7


def test_what_a_task_is_publishing_outlives_its_report(used: Tables, settings: Settings) -> None:
    """The report was read, then it is cleaned away, then the commits are made: the files must still be there."""
    head = stage_refused(used, settings)
    jobs = FakeJobs(used, {})
    featurized = jobs.featurize(head)
    reduced = jobs.reduce(head, featurized)
    age(used)
    assert "report" in {removal.kind for removal in clean(used, settings)}
    assert used.warehouse.size(report_path(featurized.work)) is None
    clean(used, settings)
    publish_batch(used, head, featurized, reduced, FACTS)
    clean(used, settings)
    age(used)
    clean(used, settings)
    assert len(list(used.rows(FEATURES, batch_id=DAYS[1]))) == 7


def test_a_model_that_a_task_is_publishing_outlives_its_plan(used: Tables, settings: Settings) -> None:
    decided = plan_model(used, with_variables(settings, ORCHARD_COMPONENTS=1))
    assert decided.projection is not None
    report = FakeJobs(used, {}).project(decided.projection)
    age(used)
    assert "plan" in {removal.kind for removal in clean(used, settings)}
    clean(used, settings)
    publish_model(used, decided, report, "late")
    age(used)
    clean(used, settings)
    assert len(rows(used, MODELS)) == 3
    assert pending_work(used, with_variables(settings, ORCHARD_COMPONENTS=1)) is None
    assert {row["model_id"] for row in used.rows(PCA_FEATURES)} >= {decided.projection.projections[0].model.model_id}


def test_a_model_that_nobody_published_goes(used: Tables, settings: Settings) -> None:
    decided = plan_model(used, with_variables(settings, ORCHARD_COMPONENTS=1))
    assert decided.projection is not None
    for _ in range(2):
        age(used)
        clean(used, settings)
    assert used.warehouse.size(decided.projection.projections[0].model.path) is None
    assert run_model(used, with_variables(settings, ORCHARD_COMPONENTS=1), "again").action == "fit"


@pytest.mark.parametrize("commits", [1, 2, 3])
def test_a_version_that_was_left_half_way_rolls_forward_however_old(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    run_model(tables, settings)
    bucket = bucket_of(DAYS[0], "new")
    head = plan(tables, settings, DAYS[0], bucket)
    assert head is not None
    with killed_after(commits, monkeypatch):
        stage_and_publish(tables, head, FakeJobs(tables, bucket))
    current = [file.path for file in tables.load(FEATURES, 1).files()]
    for _ in range(3):
        age(tables)
        clean(tables, settings)
    assert all(tables.warehouse.size(path) is not None for path in current), "the runs row still names them"
    assert run_batch(tables, settings, DAYS[0], bucket, "retry").network_runs == []
    assert {row["manifest_digest"] for table in (FEATURES, QUARANTINE) for row in tables.rows(table)} == {head.digest}
    assert len(rows(tables, RUNS)) == 2


def test_what_was_replaced_lately_stays_for_its_readers(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    old = {file.path for table in (FEATURES, QUARANTINE) for file in tables.load(table).files()}
    age(tables)
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0], "new"))
    clean(tables, settings)
    assert all(tables.warehouse.size(path) is not None for path in old), "they are old, but were replaced just now"
    age(tables)
    assert old <= {removal.path for removal in clean(tables, settings) if removal.kind == "replaced"}


def test_an_old_manifest_that_is_planned_again_stays(tables: Tables, settings: Settings) -> None:
    bucket = bucket_of(DAYS[0])
    first = plan(tables, settings, DAYS[0], bucket)
    age(tables)
    head = plan(tables, settings, DAYS[0], bucket)
    assert head is not None
    assert head == first
    assert clean(tables, settings) == ()
    report = FakeJobs(tables, bucket).featurize(head)
    age(tables)
    assert plan(tables, settings, DAYS[0], bucket) == head
    assert clean(tables, settings) == ()
    publish_batch(tables, head, report, None, FACTS)


def test_an_old_projection_that_is_planned_again_stays(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    first = plan_model(tables, settings)
    age(tables)
    assert plan_model(tables, settings) == first
    clean(tables, settings)
    run_model(tables, settings)
    assert pending_work(tables, settings) is None


def test_an_old_decision_stays_while_its_projection_goes_on(tables: Tables, settings: Settings) -> None:
    run_batch(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    planned = project_model(tables, settings)
    age(tables)
    assert project_model(tables, settings) == planned
    clean(tables, settings)
    publish_projected(tables, planned)
    assert pending_work(tables, settings) is None


def test_the_files_of_work_that_goes_on_stay(tables: Tables, settings: Settings) -> None:
    """A job that runs for longer than the retention is known by its running counts."""
    head = plan(tables, settings, DAYS[0], bucket_of(DAYS[0]))
    assert head is not None
    work = work_digest(head.digest, head.backbone.id, "featurize")
    reduced = work_digest(head.digest, head.backbone.id, "reduce")
    staged = f"features/backbone={head.backbone.id}/batch_id={DAYS[0]}/{work}/{'a' * 16}/part-00000.parquet"
    scratch = f"_work/{work}/scratch/{'a' * 16}/outcomes/part-00000.parquet"
    for path in (staged, scratch):
        tables.warehouse.create(path, b"rows")
    age(tables)
    tables.warehouse.create(f"_work/{work}/progress/{'a' * 16}/1.json", b"{}")
    assert [removal.path for removal in clean(tables, settings)] == [f"{progress_folder(reduced)}/planned/mark.json"]
    age(tables)
    assert {removal.kind for removal in clean(tables, settings)} == {"staged", "scratch", "manifest"}
    assert {path for path in stored(tables) if "/_delta_log/" not in path} == set()


def test_what_orchard_did_not_write_is_left_alone(used: Tables, settings: Settings) -> None:
    foreign = ["notes.txt", "features/readme.md", "_work/mine/x.json", "other/0123456789abcdef/part.parquet"]
    for path in foreign:
        used.warehouse.create(path, b"mine")
    age(used, days=1000)
    logs = {path for path in stored(used) if "/_delta_log/" in path}
    clean(used, settings, timedelta(0))
    assert {*foreign, *logs} <= stored(used)


def test_checksums_stay_with_their_files(used: Tables, settings: Settings) -> None:
    path = used.load(FEATURES).files()[0].path
    folder, _, name = path.rpartition("/")
    used.warehouse.create(f"{folder}/.{name}.crc", b"crc")
    used.warehouse.create(f"{folder}/.gone.parquet.crc", b"crc")
    age(used)
    clean(used, settings)
    assert used.warehouse.size(f"{folder}/.{name}.crc") == 3
    assert used.warehouse.size(f"{folder}/.gone.parquet.crc") is None


def test_only_backbones_without_a_batch_go(used: Tables, settings: Settings) -> None:
    other = backbone_named("resnet50")
    for backbone in (settings.backbone, other):
        used.warehouse.create(backbone_path(backbone.id), b"onnx")
    age(used)
    assert [removal.path for removal in clean(used, settings) if removal.kind == "network"] == [backbone_path(other.id)]
    assert used.warehouse.size(backbone_path(settings.backbone.id)) == 4


def test_two_cleanings_at_once_do_no_harm(used: Tables, settings: Settings) -> None:
    before = contents(used)
    age(used)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: clean(used, settings, timedelta(0)), range(4)))
    assert clean(used, settings, timedelta(0)) == ()
    check_whole(used, settings, before)


@pytest.mark.parametrize("table", [table.name for table in TABLES])
def test_nothing_is_removed_while_a_table_is_missing(used: Tables, settings: Settings, table: str) -> None:
    age(used)
    (root_of(used) / table / "_delta_log").rename(root_of(used) / "hidden")
    before = stored(used)
    with pytest.raises(JobError, match="is not a table"):
        clean(used, settings, timedelta(0))
    assert stored(used) == before


def test_rows_of_an_expired_model_go_and_then_their_files(used: Tables, settings: Settings) -> None:
    both = {row["model_id"] for row in used.rows(PCA_FEATURES)}
    promotion = current_promotion(used, settings.backbone.id)
    assert promotion is not None
    assert len(both) == 2
    cleaning.clean(used, with_variables(settings, ORCHARD_MODEL_RETENTION_DAYS=0), datetime.now(UTC), WEEK)
    assert {row["model_id"] for row in used.rows(PCA_FEATURES)} == {promotion.model_id}
    for _ in range(2):
        age(used)
        clean(used, settings)
    assert {path.split("/")[1] for path in stored(used) if path.startswith("pca_features/model_id=")} == {
        f"model_id={promotion.model_id}"
    }
