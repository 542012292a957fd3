"""How long does a refit take, and what do a thousand batches cost?

First a whole run of pca_model over 17 batches of 9,660 rows, as the tasks run it: plan, the Spark job with its start, audit,
publish. Then it writes the moments of 1,000 batches of 1,280 dimensions to the local disk, one commit for each batch and table.
It prints the time of the first merge, of one batch more, of a plan and of a look at the logs, and the memory of the process.

Rows are drawn with a spectrum that falls like that of real features. Run: .venv/airflow/bin/python bench/refit_times.py [batches]
"""

import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from orchard.models import run as model_run
from orchard.models.merged_moments import merged_moments
from orchard.models.model import model_file, read_model
from orchard.models.model_plan import ModelPlan
from orchard.models.publish import record_model_run
from orchard.models.refit import pending_work, plan_model
from orchard.models.registry import PromotionRequest, append_promotion
from orchard.outcomes import Done
from orchard.settings import Settings
from orchard.tables.batch_versions import readable_versions, version_key
from orchard.tables.commit_rule import Change, Tables
from orchard_jobs.contract.columns import FEATURES, MODELS, MOMENTS, PCA_FEATURES, RUNS, Table
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.jobs import StagedFile
from orchard_jobs.contract.layout import random_element, staged_path
from orchard_jobs.contract.locations import below, image_uri
from orchard_jobs.local_spark import submit_command
from orchard_jobs.pca.moments import Moments
from orchard_jobs.schemas import arrow_schema

ROOT = Path(__file__).resolve().parents[1]
JOBS_BIN = ROOT / ".venv" / "jobs" / "bin"
DIMENSION = 1280
ROWS, BATCHES = 9_660, 17
_MADE_UP = {
    "string": "x",
    "int32": 1,
    "int64": 1,
    "float64": 1.0,
    "list<string>": ["x"],
    "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
}


def main() -> int:
    """Print a line a measurement: seconds or MiB, and the limit."""
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{'what':58} {'measured':>10} {'limit':>8}")
    with tempfile.TemporaryDirectory() as folder:
        measure_refit(*open_tables(folder))
    with tempfile.TemporaryDirectory() as folder:
        measure_moments(*open_tables(folder), batches)
    return 0


def measure_refit(tables: Tables, settings: Settings) -> None:
    """Time one run of pca_model on published batches of 140 to 1,000 rows."""
    sizes = np.linspace(140, 2 * ROWS / BATCHES - 140, BATCHES).astype(int)
    sizes[-1] += ROWS - sizes.sum()
    for number, rows in enumerate(draw([int(size) for size in sizes])):
        publish(tables, settings, f"b{number:04}", rows)
    with measured(f"refit: {BATCHES} batches, {ROWS} rows, plan to publish", 60):
        planned = timed_step("  plan (merge and fit)", lambda: model_run.plan(tables, settings, "bench"))
        assert isinstance(planned, Done)
        jobs = planned.value
        timed_step("  Spark job, with its start", lambda: run_project(tables, jobs.input_digest))
        assert isinstance(timed_step("  audit", lambda: model_run.validate(tables, jobs)), Done)
        assert isinstance(timed_step("  publish", lambda: model_run.publish(tables, jobs, "bench")), Done)
    assert pending_work(tables, settings) is None


def run_project(tables: Tables, digest: str) -> None:
    """Run the job as the local launcher submits it."""
    command = [*submit_command(JOBS_BIN.parent), "--driver-memory", "2g"]
    command += [str(ROOT / "spark_jobs/orchard_jobs/entry/run_job.py"), "project", "--warehouse", tables.warehouse.uri]
    python = {"PYSPARK_PYTHON": str(JOBS_BIN / "python"), "PYSPARK_DRIVER_PYTHON": str(JOBS_BIN / "python")}
    subprocess.run([*command, "--input-digest", digest], check=True, capture_output=True, env=os.environ | python)


def measure_moments(tables: Tables, settings: Settings, batches: int) -> None:
    """Time merges and looks at many batches, one commit a batch in each table."""
    backbone = settings.backbone.id
    drawn = [Moments.of(rows) for rows in draw([DIMENSION] * 4)]
    with measured(f"writing {batches} batches, three commits each", None):
        for number in range(batches):
            publish(tables, settings, f"b{number:04}", drawn[number % len(drawn)])
    with measured(f"logs of {batches} commits: load and list features, runs, moments", None):
        for table in (FEATURES, RUNS, MOMENTS):
            tables.load(table).files(backbone=backbone)
    versions = timed_step("every batch's current version", lambda: readable_versions(tables, backbone))
    with measured(f"first merge of {batches} batches' moments", 120):
        merged_moments(tables, backbone, versions, None)
    plan = timed_step("first plan: versions, merge, fit, the model's file", lambda: plan_model(tables, settings))
    stand_in_for_the_job(tables, plan, backbone)
    publish(tables, settings, f"b{batches:04}", drawn[0])
    model_id = str(plan.model_id)
    versions = readable_versions(tables, backbone)
    with measured("one batch more: read the model, merge", 5):
        merged_moments(tables, backbone, versions, read_model(tables.warehouse, model_id))
    timed_step("one batch more: look for pending work", lambda: pending_work(tables, settings))
    timed_step("one batch more: the whole plan, with the decomposition", lambda: plan_model(tables, settings))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'memory of all this, at its peak':58} {peak:6.0f} MiB {2048:>4} MiB")


def stand_in_for_the_job(tables: Tables, plan: ModelPlan, backbone: str) -> None:
    """Promote a planned model as if its rows, which nothing here reads, were projected."""
    assert plan.projection is not None
    assert plan.model_id is not None
    changes = [
        Change(version_key(model.model_id, batch.batch_id), batch.number, batch.manifest_digest, (model.model_id, batch.batch_id))
        for model, batch in plan.projection.pairs
    ]
    file = model_file(tables.warehouse, plan.model_id)
    tables.commit(MODELS, [Change(f"model/{plan.model_id}", 1, digest_of(plan.model_id), (), (file,))], "append")
    tables.commit(PCA_FEATURES, changes)
    append_promotion(tables, PromotionRequest(backbone, plan.model_id, None, "bench"))
    record_model_run(tables, backbone, plan, "bench")


def open_tables(folder: str) -> tuple[Tables, Settings]:
    """Return the empty tables of a folder, and settings that name it."""
    settings = Settings.from_environment({"ORCHARD_WAREHOUSE": folder})
    tables = Tables.at(settings.warehouse)
    tables.create_all()
    return tables, settings


def draw(sizes: list[int]) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Yield float32 rows [size, 1280] whose variances fall as 1 / i, each batch about a mean of its own."""
    random = np.random.default_rng(0)
    turn, _ = np.linalg.qr(random.normal(size=(DIMENSION, DIMENSION)))
    scales = np.sqrt(1 / np.arange(1, DIMENSION + 1))
    for size in sizes:
        rows = random.normal(size=(size, DIMENSION)) * scales + random.normal(size=DIMENSION) * scales
        yield np.asarray((rows @ turn) + 0.5, dtype=np.float32)


def publish(tables: Tables, settings: Settings, batch_id: str, content: Any) -> None:
    """Commit a batch version: from rows, features and (where a job would) moments; from moments, those and no features."""
    partition = (settings.backbone.id, batch_id)
    digest = digest_of(batch_id)
    rows = None if isinstance(content, Moments) else content
    moments = content if rows is None else Moments.of(rows) if len(rows) >= DIMENSION / 2 else None
    features = (stage(tables, FEATURES, partition, features_of(rows, digest)),) if rows is not None else ()
    packed = (stage(tables, MOMENTS, partition, moments_of(moments, digest)),) if moments else ()
    run = tables.stage(
        RUNS, [{column.name: _MADE_UP[column.type] for column in RUNS.columns} | {"manifest_digest": digest}], partition
    )
    for table, files in ((FEATURES, features), (RUNS, (run,)), (MOMENTS, packed)):
        tables.commit(table, [Change(version_key(*partition), 1, digest, partition, files)])


def features_of(rows: Any, digest: str) -> pa.Table:
    """Return rows of the table features."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIMENSION)
    names = {
        "image_uri": pa.array([below(image_uri("landing", "images/x"), digest[:8], f"{i:05}.jpg") for i in range(len(rows))])
    }
    names |= {"content_sha256": pa.array([digest_of([digest, i]) for i in range(len(rows))]), "features": lists}
    names |= {"manifest_digest": pa.array([digest] * len(rows))}
    schema = arrow_schema(FEATURES)
    columns = [
        names[field.name].cast(field.type) if field.name in names else pa.array([_MADE_UP[column.type]] * len(rows), field.type)
        for column, field in zip(FEATURES.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def moments_of(moments: Moments, digest: str) -> pa.Table:
    """Return the one row of the table moments."""
    schema = arrow_schema(MOMENTS)
    values = {"manifest_digest": [digest], "n": [moments.n], "mean": [moments.mean], "second_moment": [moments.upper_triangle]}
    return pa.table({name: pa.array(value, schema.field(name).type) for name, value in values.items()}, schema)


def stage(tables: Tables, table: Table, partition: tuple[str, ...], rows: pa.Table) -> StagedFile:
    """Write one file as a job stages it."""
    packed = io.BytesIO()
    pq.write_table(rows, packed)
    path = staged_path(table, partition, None, random_element(), "part-00000.parquet")
    tables.warehouse.create(path, packed.getvalue())
    return StagedFile(path, packed.tell(), len(rows), tables.warehouse.sha256(path))


@contextmanager
def measured(what: str, limit_seconds: float | None) -> Iterator[None]:
    """Print how long the block took, beside its limit."""
    start = time.perf_counter()
    yield
    limit = "" if limit_seconds is None else f"{limit_seconds:g} s"
    print(f"{what:58} {time.perf_counter() - start:8.2f} s {limit:>8}", flush=True)


def timed_step(what: str, step: Any) -> Any:
    """Run a step and print how long it took; return what it returned."""
    with measured(what, None):
        return step()


if __name__ == "__main__":
    sys.exit(main())
