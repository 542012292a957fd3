"""How long does plan_batch take, how much memory does it need, and how fast is its listing on a real S3 server?

The server is versitygw (`go install github.com/versity/versitygw/cmd/versitygw@v1.8.0`), found on PATH or by VERSITYGW; it
holds as many objects as asked for. Planned are a new batch, the same batch published and unchanged, and with one late image.
The published rows are written as the jobs write them, with vectors that are zero but for one value: no backbone is needed.
CPU seconds are this process's: what the server takes, or a busy machine, is in the wall seconds alone.
Run: .venv/airflow/bin/python bench/plan_times.py [objects]
"""

import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import S3Store
from orchard.batch.manifests import read_entries
from orchard.batch.plan import plan_batch
from orchard.batch.publish import RunFacts, publish_batch
from orchard.landing_zone.listing import ListedObject, S3LandingZone, with_quick_times
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs import __version__
from orchard_jobs.contract.columns import FEATURES
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport, StagedFile, StagedPartition
from orchard_jobs.contract.layout import random_element, report_path, staged_path
from orchard_jobs.contract.locations import below, prefix_of
from orchard_jobs.contract.manifest import Entry, ManifestHead
from orchard_jobs.schemas import arrow_schema

BATCH, BUCKET = "2026-01-01", "landing"
PREFIX = prefix_of(below("images", BATCH))
ROWS_PER_FILE = 10_000
KEY = "orchard"


def main() -> int:
    """Print seconds, objects a second and the peak of the process's memory, a step a line; return 1 without the server."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    server = os.environ.get("VERSITYGW") or shutil.which("versitygw")
    if server is None:
        print("versitygw is neither on PATH nor named by VERSITYGW", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, serving(server, Path(folder)) as address:
        session = boto3.Session(KEY, KEY, region_name="us-east-1")
        client = with_quick_times(session.client("s3", endpoint_url=address))
        client.create_bucket(Bucket=BUCKET)
        fill(address, count)
        settings = Settings.from_environment({"ORCHARD_WAREHOUSE": str(Path(folder, "warehouse"))})
        tables = Tables.at(settings.warehouse)
        tables.create_all()
        measure(tables, settings, client, count)
    return 0


def measure(tables: Tables, settings: Settings, client: Any, count: int) -> None:
    """List the batch, and plan it while it is new, unchanged, and with a late image."""
    print(f"{count} objects on versitygw; memory of the process so far: {peak()} MiB")
    print("step                     seconds  CPU s  objects/s    objects/CPU s  peak MiB")

    def listed() -> Iterator[ListedObject]:
        return S3LandingZone(client, BUCKET).list(PREFIX)

    timed("listing alone", count, lambda: sum(1 for _ in listed()))
    head = timed("plan, new batch", count, lambda: plan_batch(tables, settings, BATCH, listed()))
    assert head is not None
    publish(tables, head)
    unchanged = timed("plan, unchanged", count, lambda: plan_batch(tables, settings, BATCH, listed()))
    assert unchanged is None
    client.put_object(Bucket=BUCKET, Key=below(PREFIX, "late", "late.jpg"), Body=b"late")
    late = timed("plan, one late image", count, lambda: plan_batch(tables, settings, BATCH, listed()))
    assert late is not None
    assert late.actions == {"compute": 1, "keep": count}


def timed(step: str, count: int, run: Callable[[], Any]) -> Any:
    """Run a step, print its line and return what it returned."""
    began, worked = time.perf_counter(), time.process_time()
    found = run()
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    print(f"{step:<23}  {seconds:7.1f}  {cpu:5.1f}  {count / seconds:9.0f}  {count / cpu:15.0f}  {peak():8}", flush=True)
    return found


def peak() -> int:
    """Return the process's largest resident memory so far, in MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextmanager
def serving(server: str, folder: Path) -> Iterator[str]:
    """Run the S3 server on a free port of loopback for the block, over a folder."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    (folder / "objects").mkdir()
    command = [server, "--port", f"127.0.0.1:{port}", "--access", KEY, "--secret", KEY, "posix", str(folder / "objects")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise SystemExit((folder / "server.log").read_text())
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def fill(address: str, count: int) -> None:
    """Put so many small objects of different content, over 100 labels."""
    options: Any = {"client_options": {"allow_http": True}, "virtual_hosted_style_request": False}
    store = S3Store(BUCKET, endpoint=address, access_key_id=KEY, secret_access_key=KEY, region="us-east-1", **options)
    from concurrent.futures import ThreadPoolExecutor

    def put(number: int) -> None:
        obstore.put(store, below(PREFIX, f"label {number % 100}", f"{number}.jpg"), content_of(number))

    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(put, range(count), chunksize=256):
            pass


def content_of(number: int) -> bytes:
    """Return an object's bytes; all are of different content and most of different size."""
    return b"%d " % number * (1 + number % 97)


def publish(tables: Tables, head: ManifestHead) -> None:
    """Stage what featurize would of a batch of only good images, and publish it."""
    work = work_digest(head.digest, head.backbone.id, "featurize")
    partition, process = (head.backbone.id, head.batch_id), random_element()
    files = [
        _stage(tables, head, staged_path(FEATURES, partition, work, process, f"part-{number:05d}.parquet"), rows)
        for number, rows in enumerate(_chunks(read_entries(tables.warehouse, head)))
    ]
    staged = (StagedPartition("features", partition, tuple(files)), StagedPartition("quarantine", partition, ()))
    counts = {
        "listed": head.listed,
        "featurized": head.listed,
        "reused": 0,
        "quarantined": 0,
        "missing": 0,
        "network_runs": head.listed,
    }
    report = JobReport(work, "featurize", head.digest, head.backbone.id, __version__, "bench", staged, counts)
    tables.warehouse.create(report_path(work), report.to_json().encode())
    publish_batch(tables, replace(head, model=None), report, None, RunFacts("bench", "local", "passed"))


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    left = iter(entries)
    while rows := list(islice(left, ROWS_PER_FILE)):
        yield rows


def _stage(tables: Tables, head: ManifestHead, path: str, entries: list[Entry]) -> StagedFile:
    schema = arrow_schema(FEATURES)
    vectors = np.zeros((len(entries), head.backbone.dimension), dtype=np.float32)
    vectors[:, 0] = np.arange(len(entries))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), head.backbone.dimension)
    columns: dict[str, Any] = {
        "image_uri": [entry.image_uri for entry in entries],
        "etag": [entry.etag for entry in entries],
        "size_bytes": [entry.size_bytes for entry in entries],
        "uploaded_at": [datetime.fromisoformat(entry.uploaded_at).astimezone(UTC) for entry in entries],
        "content_sha256": [hashlib.sha256(entry.image_uri.encode()).hexdigest() for entry in entries],
        "label": [entry.label for entry in entries],
        "width": [1] * len(entries),
        "height": [1] * len(entries),
    }
    columns |= {name: [head.digest] * len(entries) for name in ("manifest_digest", "computed_in")}
    columns["jobs_version"] = [__version__] * len(entries)
    arrays = [
        pa.array(columns[field.name], field.type) if field.name != "features" else lists.cast(field.type) for field in schema
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink)
    content = sink.getvalue().to_pybytes()
    tables.warehouse.create(path, content)
    return StagedFile(path, len(content), len(entries), hashlib.sha256(content).hexdigest())


if __name__ == "__main__":
    sys.exit(main())
