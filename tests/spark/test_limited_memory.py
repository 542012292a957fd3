"""What a job does with little memory: a worker's part fits what it may have, and no image takes its batch with it."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.layout import backbone_path
from orchard_jobs.stages.spark_reader import BYTES_PER_SHARD
from orchard_jobs.storage import Warehouse
from PIL import Image
from support import shard_worker
from support.limited_memory import limited_memory
from support.local_manifests import entry_of, freeze
from support.pictures import picture, saved

GB = 1_000_000_000


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
        "index": pa.array([0] * len(entries), pa.int64()),
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
