"""How long does the fit of a classifier take, with Spark's start, and how much memory does it need?

Rows of 131 classes in 17 batches are drawn. The job `classify` is run on a third of them, then on all, as the local launcher
submits it. The memory is the largest of any process that the job started.
Run: .venv/airflow/bin/python bench/classifier_fit_times.py [rows]
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from orchard_jobs.classifier.stored import read_classifier
from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import BatchVersion, ClassifierFit, JobReport, ProjectionPlan
from orchard_jobs.contract.layout import ProjectionPlanPath, model_path, random_element, report_path, staged_path
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.local_spark import submit_command
from orchard_jobs.parquet import pack
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

ROOT = Path(__file__).resolve().parents[1]
JOBS_BIN = ROOT / ".venv" / "jobs" / "bin"
DIMENSION, CLASSES, BATCHES, ROWS_PER_FILE = 1280, 131, 17, 2048
LIMIT_SECONDS = 60


def main() -> int:
    """Print a line a fit."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 90_000
    print(f"{'rows':>7} {'seconds':>8} {'limit':>6} {'MiB':>6}  steps; held-out rows, accuracy, shrinkage")
    for count in (rows // 3, rows):
        with tempfile.TemporaryDirectory() as folder:
            measure(Warehouse.at(folder), count)
    return 0


def measure(warehouse: Warehouse, rows: int) -> None:
    """Publish drawn rows, run the job, and print what it took."""
    plan = plan_of(warehouse, rows)
    warehouse.create(str(ProjectionPlanPath(plan.digest)), plan.to_json().encode())
    start = time.monotonic()
    run_job(warehouse, plan.digest)
    seconds = time.monotonic() - start
    report = JobReport.from_json(warehouse.read(report_path(work_digest(plan.digest, plan.backbone, "classify"))))
    assert plan.fit is not None
    stored = read_classifier(warehouse, plan.fit.model)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    told = f"{json.dumps(report.seconds)}; {stored.held_out.rows}, {stored.held_out.accuracy:.3f}, {stored.shrinkage}"
    print(f"{rows:>7} {seconds:>8.1f} {LIMIT_SECONDS:>6} {peak:>6.0f}  {told}", flush=True)


def plan_of(warehouse: Warehouse, rows: int) -> ProjectionPlan:
    """Return the plan of a fit on rows that are drawn here: classes apart by a few deviations in some directions."""
    random = np.random.default_rng(0)
    means = np.abs(random.normal(0.6, 0.03, size=(CLASSES, DIMENSION)))
    scale = np.geomspace(0.5, 0.02, DIMENSION)
    versions = []
    for batch in range(BATCHES):
        count = rows // BATCHES + (batch < rows % BATCHES)
        labels = random.integers(CLASSES, size=count)
        roots = means[labels] + random.normal(size=(count, DIMENSION)) * scale
        features = np.square(np.maximum(roots, 0)).astype(np.float32)
        versions.append(publish(warehouse, f"b{batch:02}", features, labels))
    names = [f"class {number:03}" for number in range(CLASSES)]
    reference = ModelReference("lda-bench", model_path("lda-bench", CLASSIFIERS), CLASSES)
    class_of = tuple((name, name) for name in names)
    fit = ClassifierFit(reference, tuple(versions), class_of, (), (), "batches", rows, None)
    return ProjectionPlan("backbone", (), kind="classifier", fit=fit)


def publish(warehouse: Warehouse, batch_id: str, features: np.ndarray, labels: np.ndarray) -> BatchVersion:
    """Write the features files of a batch."""
    paths = []
    for first in range(0, len(labels), ROWS_PER_FILE):
        vectors = features[first : first + ROWS_PER_FILE]
        count = len(vectors)
        values = {
            "image_uri": [f"{first + n} of {batch_id}" for n in range(count)],
            "content_sha256": [hashlib.sha256(vector.tobytes()).hexdigest() for vector in vectors],
            "label": [f"class {label:03}" for label in labels[first : first + ROWS_PER_FILE]],
            "features": list(vectors),
            "uploaded_at": [datetime(2026, 1, 1, tzinfo=UTC)] * count,
        }
        made_up = {"string": "x", "int32": 1, "int64": 1}
        columns = {one.name: values.get(one.name) or [made_up[one.type]] * count for one in FEATURES.columns}
        path = staged_path(FEATURES, ("backbone", batch_id), None, random_element(), f"part-{first:06}.parquet")
        warehouse.create(path, pack(pa.table(columns, arrow_schema(FEATURES)), use_dictionary=["label"]))
        paths.append(path)
    return BatchVersion(batch_id, hashlib.sha256(batch_id.encode()).hexdigest(), 1, tuple(paths))


def run_job(warehouse: Warehouse, digest: str) -> None:
    """Run the job as the local launcher submits it."""
    command = [*submit_command(JOBS_BIN.parent), "--driver-memory", "2g"]
    command += [str(ROOT / "spark_jobs/orchard_jobs/entry/run_job.py"), "classify", "--warehouse", warehouse.uri]
    python = {"PYSPARK_PYTHON": str(JOBS_BIN / "python"), "PYSPARK_DRIVER_PYTHON": str(JOBS_BIN / "python")}
    subprocess.run([*command, "--input-digest", digest], check=True, capture_output=True, env=os.environ | python)


if __name__ == "__main__":
    sys.exit(main())
