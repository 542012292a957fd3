"""What a job does with little memory: a worker's part fits what it may have, and no image takes its batch with it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.layout import backbone_path, report_path
from orchard_jobs.local_spark import submit_command
from orchard_jobs.stages.spark_reader import BYTES_PER_SHARD
from orchard_jobs.storage import Warehouse
from PIL import Image
from support import shard_worker
from support.limited_memory import limited_memory
from support.local_manifests import entry_of, freeze, rows_of
from support.pictures import picture, saved
from support.repository import ROOT

GB = 1_000_000_000
SHARED = Path(os.environ.get("ORCHARD_SHARED_DATA") or ROOT.parent / "shared" / "data")


def photo() -> bytes:
    """A picture of 12 megapixels, of the size of a phone's."""
    return saved(picture(500, 376).resize((4000, 3008), Image.Resampling.BICUBIC), "JPEG", quality=97)


def test_a_shard_of_photos_fits_a_worker_that_has_1_gb_for_everything(
    tmp_path: Path, warehouse: Warehouse, backbone: Backbone
) -> None:
    content = photo()
    entries = []
    for number in range(BYTES_PER_SHARD // len(content)):
        (tmp_path / f"{number}.jpg").write_bytes(content + bytes([number]))  # what follows the picture tells them apart
        entries.append(entry_of(tmp_path / f"{number}.jpg"))
    head = freeze(warehouse, backbone, entries, batch_id="2026-09-01")
    (tmp_path / "head.json").write_text(head.to_json())
    rows = {
        "number": pa.array([0] * len(entries), pa.int64()),
        "entry": [json.dumps(asdict(entry)) for entry in entries],
        "content": [content + bytes([number]) for number in range(len(entries))],
    }
    shard = pa.RecordBatch.from_pydict(rows)
    with pa.OSFile(str(tmp_path / "shard"), "wb") as file, pa.ipc.new_stream(file, shard.schema) as stream:
        stream.write_batch(shard)
    (tmp_path / "backbone.onnx").write_bytes(warehouse.read(backbone_path(backbone.id)))
    given = [str(tmp_path / name) for name in ("shard", "head.json", "backbone.onnx")]
    with limited_memory(GB) as memory:
        command = memory.command([sys.executable, shard_worker.__file__, *given])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert memory.peak_bytes < 0.5 * GB, "Spark needs room beside it"
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(result["tally"]["network_runs"] for result in results) == len(entries) >= 10
    assert not any(result["quarantine"] for result in results)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the bombs and the fruits are not here")
def test_a_batch_with_every_bomb_has_all_its_other_rows_in_3_gb(warehouse: Warehouse, backbone: Backbone) -> None:
    fruits = sorted((SHARED / "fruits360").rglob("*.jpg"))[::48][:200]
    bombs = sorted((SHARED / "bug_reports" / "bombs").iterdir())
    assert (len(fruits), len(bombs) > 5) == (200, True)
    head = freeze(warehouse, backbone, [entry_of(path) for path in [*fruits, *bombs]], batch_id="2026-09-02")
    script = str(ROOT / "spark_jobs" / "orchard_jobs" / "entry" / "run_job.py")
    job = [*submit_command(Path(sys.prefix)), script, "featurize", "--warehouse", warehouse.uri, "--input-digest", head.digest]
    with limited_memory(3 * GB) as memory:
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        environment = {
            name: value for name, value in os.environ.items() if name not in ("PYSPARK_SUBMIT_ARGS", "SPARK_REMOTE")
        } | python
        done = subprocess.run(memory.command(job), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    report = JobReport.from_json(warehouse.read(report_path(work_digest(head.digest, backbone.id, "featurize"))))
    published = {row["image_uri"] for row in rows_of(warehouse, report, "features")}
    assert {f"file://{path}" for path in fruits} <= published
    set_aside = {row["image_uri"]: row["reason"] for row in rows_of(warehouse, report, "quarantine")}
    assert published | set_aside.keys() == {entry_of(path).image_uri for path in [*fruits, *bombs]}
    assert set_aside[f"file://{SHARED}/bug_reports/bombs/jpeg_200.bin"] == "too costly to decode"
