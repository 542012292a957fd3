"""A generated history on the real stack, drawn by a seed, and the one clean run that it must end as."""

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from orchard.landing_zone.listing import S3LandingZone
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_sandbox.job_execution.processes import find_members
from orchard_sandbox.s3.landing import aws_client, queue_url
from orchard_sandbox.stack.airflow_api import AirflowApi
from orchard_sandbox.stack.stack_paths import Layout

from support.simulation.landing_zone import message_of
from support.spark_runs import copy_backbone, publish_batch

BUCKET, CLEAN_BUCKET = "landing", "clean"
DAGS = ("image_arrivals", "image_batches_on_arrival", "image_batches", "reconcile_uploads", "pca_model")
NAMES = ("a.jpg", "b.jpg", "c/d e.jpg", "c/é#?%+.jpg")
TOLD = {
    "features": ("image_uri", "etag", "size_bytes", "content_sha256", "label", "width", "height", "features"),
    "quarantine": ("image_uri", "etag", "size_bytes", "content_sha256", "label", "reason", "message"),
}


@dataclass
class GeneratedHistory:
    """Uploads, overwrites, copies, deletions and runs on a running stack, and what the bucket was last seen to hold.

    Attributes:
        seed: draws everything, so that a history can be run again; how it meets the stack's processes differs each time.
        home: the stack's home.
        s3: a client that knows nothing of Orchard.
        api: Airflow's.
        contents: what can be uploaded.
    """

    seed: int
    home: Path
    aws: dict[str, str]
    api: AirflowApi
    contents: list[bytes]
    last: dict[str, bytes] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.s3, self._sqs = aws_client("s3", self.aws), aws_client("sqs", self.aws)
        self._queue = queue_url(self.aws["AWS_ENDPOINT_URL"])
        self.days = tuple(f"2026-02-{1 + 2 * self.seed + n:02d}" for n in range(2))

    def run(self, steps: int) -> None:
        """Live through the history, and let the stack come to rest."""
        for _ in range(3):
            self._upload()
        kinds: dict[Callable[[], None], int] = {self._upload: 5, self._copy: 2, self._delete: 2, self._start: 2, self._wait: 3}
        kinds |= dict.fromkeys((self._start_two, self._backfill, self._kill_a_job, self._repeat_messages, self._lose_messages), 1)
        for _ in range(steps):
            self.draw.choices([*kinds], [*kinds.values()])[0]()
        self.rest()

    def rest(self) -> None:
        """Wait until nothing runs, and reconcile until that starts nothing."""
        for _ in range(4):
            self._wait_for_silence()
            before = self._count_runs()
            self.api.start_run("reconcile_uploads", None, {})
            self._wait_for_silence()
            if self._count_runs() == before:
                return
        raise AssertionError(f"reconciling does not come to an end: {self}")

    def check(self, warehouse: Path) -> None:
        """Hold the tables against one clean run of each batch over the last content of every key that was seen."""
        published = self.home / "warehouse"
        clean_run(warehouse, self.aws, self.last, self.days)
        for table, names in TOLD.items():
            found, expected = (published_rows(str(folder / table), self.days, names) for folder in (published, warehouse))
            assert found == expected, f"{table}: {self}"
        promotions = pl.read_delta(str(published / "promotions")).filter(pl.col("kind") == "pca")
        current = promotions.sort("sequence")["model_id"][-1]
        projected = pl.read_delta(str(published / "pca_features")).filter(pl.col("model_id") == current)
        features = pl.read_delta(str(published / "features"))
        identity = ("image_uri", "content_sha256", "manifest_digest")
        rows = [sorted(frame.select(identity).iter_rows()) for frame in (projected, features)]
        assert rows[0] == rows[1], str(self)

    def __str__(self) -> str:
        return f"seed {self.seed}: " + "; ".join(self.told)

    def _put(self, key: str, content: bytes) -> None:
        self.told.append(f"put {key} {hashlib.sha256(content).hexdigest()[:8]}")
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        self.last[key] = content
        self.listed.add(key)

    def _key(self) -> str:
        return f"images/{self.draw.choice(self.days)}/{self.draw.choice(NAMES)}"

    def _upload(self) -> None:
        self._put(self._key(), self.draw.choice(self.contents))

    def _copy(self) -> None:
        """A known content under another key, or once more under its own."""
        self._put(self._key(), self.draw.choice([self.last[key] for key in sorted(self.listed)] or self.contents))

    def _delete(self) -> None:
        """Delete an image that is published as it is now: whether another was seen before it went, nobody can tell."""
        published = self._published()
        keys = sorted(key for key in self.listed if (key, hashlib.md5(self.last[key]).hexdigest()) in published)
        if keys:
            key = self.draw.choice(keys)
            self.told.append(f"delete {key}")
            self.s3.delete_object(Bucket=BUCKET, Key=key)
            self.listed.remove(key)

    def _repeat_messages(self) -> None:
        """S3 may tell of an upload again, however late, also of one that is gone by now; and a queue may hold anything."""
        for key in self.draw.choices(sorted(self.last), k=2):
            self.told.append(f"tell again {key}")
            self._send(message_of(BUCKET, key))
        self._send("no JSON")

    def _lose_messages(self) -> None:
        """Take what the queue holds, as a triggerer does that dies before it has stored the events."""
        found = self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages", [])
        self.told.append(f"lose {len(found)} messages")
        for message in found:
            self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])

    def _send(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self._queue, MessageBody=body)

    def _published(self) -> set[tuple[str, str]]:
        frames = [pl.read_delta(str(self.home / "warehouse" / table)).select("image_uri", "etag") for table in TOLD]
        return {(uri.removeprefix(f"s3://{BUCKET}/"), etag) for uri, etag in pl.concat(frames).iter_rows()}

    def _start(self) -> None:
        day = self.draw.choice(self.days)
        self.told.append(f"start {day}")
        self.api.start_run("image_batches", day, {})

    def _start_two(self) -> None:
        for _ in range(2):
            self._start()

    def _backfill(self) -> None:
        self.told.append("backfill")
        if not self.api.runs("image_batches", ("queued", "running")):
            start_backfill(self.api, *self.days)

    def _kill_a_job(self) -> None:
        """Kill a Spark job with -9 if one comes within a while."""
        for _ in range(30):
            jobs = [pid for pid in find_members([], Layout(self.home).marker) if _is_spark(pid)]
            if jobs:
                self.told.append("kill a job")
                os.kill(jobs[0], signal.SIGKILL)
                return
            time.sleep(1)

    def _wait(self) -> None:
        seconds = self.draw.choice((1, 4, 10))
        self.told.append(f"wait {seconds}")
        time.sleep(seconds)

    def _count_runs(self) -> int:
        return sum(len(self.api.runs(dag_id)) for dag_id in DAGS if dag_id != "reconcile_uploads")

    def _wait_for_silence(self) -> None:
        quiet = 0
        while quiet < 3:  # an upload's message takes a moment to become a run
            quiet = 0 if any(self.api.runs(dag_id, ("queued", "running")) for dag_id in DAGS) else quiet + 1
            time.sleep(1)


def start_backfill(api: AirflowApi, first: str, last: str, reprocess: str = "completed", path: str = "") -> Any:
    """Start a backfill of image_batches over the days from the first to the last; with `/dry_run` only tell of its runs."""
    body = {"dag_id": "image_batches", "from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
    options = {"reprocess_behavior": reprocess, "max_active_runs": 2, "run_backwards": False, "dag_run_conf": {}}
    return api.call("POST", f"backfills{path}", body | options)


def _is_spark(pid: int) -> bool:
    try:
        return b"org.apache.spark.deploy.SparkSubmit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def published_rows(
    table: str, days: tuple[str, ...], names: tuple[str, ...], options: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return some columns of some batches' rows, sorted by URI, as if all came from one bucket."""
    found = pl.read_delta(table, storage_options=options).filter(pl.col("batch_id").is_in(days)).select(names).to_dicts()
    for row in found:
        row["image_uri"] = row["image_uri"].replace(f"s3://{CLEAN_BUCKET}/", f"s3://{BUCKET}/")
    return sorted(found, key=lambda row: str(row["image_uri"]))


def clean_run(warehouse: Path, aws: dict[str, str], contents: dict[str, bytes], days: tuple[str, ...]) -> None:
    """Plan, compute, audit and publish each batch once in a warehouse of its own, without Airflow.

    Args:
        warehouse: the new warehouse.
        aws: the variables that let other tools reach the stand-in.
        contents: what is in the bucket, by key.
        days: the batches.
    """
    s3 = aws_client("s3", aws)
    s3.create_bucket(Bucket=CLEAN_BUCKET)
    for key, content in contents.items():
        s3.put_object(Bucket=CLEAN_BUCKET, Key=key, Body=content)
    settings = Settings.from_environment({"ORCHARD_WAREHOUSE": str(warehouse), "ORCHARD_LANDING": f"s3://{CLEAN_BUCKET}/images"})
    tables = Tables.at(str(warehouse))
    copy_backbone(tables, settings)
    landing_zone = S3LandingZone(s3, CLEAN_BUCKET)
    for day in days:
        if not list(landing_zone.list(settings.landing_zone.batch_prefix(day))):
            continue
        publish_batch(tables, settings, day, landing_zone, aws)


def some_contents(fruits: Path, drawn: list[bytes]) -> list[bytes]:
    """Return real images when the folder is there and drawn ones otherwise, and two broken ones."""
    real = [path.read_bytes() for path in islice(sorted(fruits.rglob("*.jpg")), 0, 4000, 500)] if fruits.is_dir() else drawn
    return [*real, b"no image", real[0][: len(real[0]) // 2]]
