"""wait_for_uploads: a batch is settled when it holds an object and its newest one is older than the quiet period.

The stock S3KeySensor reads one listing on its first poke but, deferred, sends a HEAD for every object; and
S3KeysUnchangedSensor waits its whole inactivity period even for a batch settled years ago. So this trigger only lists.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from croniter import croniter

from orchard.batches import checked_partition_key
from orchard.listing import ListedObject, list_batch, objects_of
from orchard.outcomes import airflow_outcomes
from orchard.settings import Settings
from orchard.timetables import batch_cron


@dataclass(frozen=True)
class Arrivals:
    """What one listing says of a batch: objects, and when the newest came."""

    objects: int
    newest: datetime | None

    def is_settled(self, now: datetime, quiet_seconds: float) -> bool:
        """Tell whether there is an object and the newest is older than the quiet period."""
        return self.newest is not None and (now - self.newest).total_seconds() >= quiet_seconds


def arrivals_of(listed: Iterable[ListedObject]) -> Arrivals:
    """Return what a listing says."""
    times = [item.uploaded_at for item in listed]
    return Arrivals(len(times), max(times, default=None))


def period_end(batch_id: str, key_format: str, cron: str) -> datetime:
    """Return when a batch's period ended: the first tick after its key's time."""
    start = datetime.strptime(batch_id, key_format).replace(tzinfo=UTC)
    end: datetime = croniter(cron, start).get_next(datetime)
    return end


class WaitForUploads(BaseOperator):
    """Wait, deferred, until the run's batch is settled; skip when nothing comes.

    A batch whose period ended longer ago than the grace time is decided at once: settled, or skipped because it is empty.
    Else the wait lasts at most `wait_seconds`, then the run is skipped. A run's conf may set `quiet_seconds`.
    """

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    def execute(self, context: Any) -> None:
        """List once; return when the batch is settled, skip when it stays empty, defer otherwise."""
        settings = self.settings
        with airflow_outcomes():
            batch_id = checked_partition_key(context["dag_run"].partition_key, settings.batch_key_format)
        now = datetime.now(UTC)
        arrivals = self._list(batch_id)
        ended = period_end(batch_id, settings.batch_key_format, batch_cron(settings))
        if now >= ended + timedelta(seconds=settings.grace_seconds):
            self._decide(batch_id, arrivals)
            return
        quiet_seconds = float((context["dag_run"].conf or {}).get("quiet_seconds", settings.quiet_seconds))
        if arrivals.is_settled(now, quiet_seconds):
            self.log.info("settled batch_id=%s objects=%s newest=%s", batch_id, arrivals.objects, arrivals.newest)
            return
        if quiet_seconds == 0:
            # Whoever asks not to wait has finished the upload.
            self._decide(batch_id, arrivals)
            return
        self.log.info("waiting batch_id=%s objects=%s newest=%s", batch_id, arrivals.objects, arrivals.newest)
        trigger = UploadsTrigger(
            bucket=settings.bucket,
            prefix=settings.batch_prefix(batch_id),
            aws_conn_id=settings.aws_conn_id,
            quiet_seconds=quiet_seconds,
            poll_seconds=min(settings.poll_seconds, max(quiet_seconds, 1.0)),
            wait_until=(now + timedelta(seconds=settings.wait_seconds)).timestamp(),
        )
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: dict[str, Any]) -> None:
        """Go on when the trigger found the batch settled; skip when the wait was over first."""
        batch_id = context["dag_run"].partition_key
        if not event["is_settled"]:
            raise AirflowSkipException(
                f"batch {batch_id} was not settled within {self.settings.wait_seconds:.0f} s: {event['objects']} objects; "
                "start it again when its upload is over"
            )
        self.log.info("settled batch_id=%s objects=%s", batch_id, event["objects"])

    def _list(self, batch_id: str) -> Arrivals:
        client = S3Hook(self.settings.aws_conn_id).get_conn()
        return arrivals_of(list_batch(client, self.settings.bucket, self.settings.batch_prefix(batch_id)))

    def _decide(self, batch_id: str, arrivals: Arrivals) -> None:
        if not arrivals.objects:
            where = f"s3://{self.settings.bucket}/{self.settings.batch_prefix(batch_id)}"
            raise AirflowSkipException(f"batch {batch_id} is empty: no object under {where}")


class UploadsTrigger(BaseTrigger):
    """Fires when a prefix is settled, or when the wait is over (`wait_until`, seconds since 1970). One listing a poll.

    The end stands in the trigger, since Airflow's own time-out of a deferral fails the task instead of skipping it.
    """

    def __init__(
        self, bucket: str, prefix: str, aws_conn_id: str, quiet_seconds: float, poll_seconds: float, wait_until: float
    ) -> None:
        BaseTrigger.__init__(self)
        self.bucket = bucket
        self.prefix = prefix
        self.aws_conn_id = aws_conn_id
        self.quiet_seconds = quiet_seconds
        self.poll_seconds = poll_seconds
        self.wait_until = wait_until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("bucket", "prefix", "aws_conn_id", "quiet_seconds", "poll_seconds", "wait_until")
        return "orchard.sensors.UploadsTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the prefix is settled or the wait is over."""
        hook = S3Hook(self.aws_conn_id)
        while True:
            async with await hook.get_async_conn() as client:
                pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
                arrivals = arrivals_of([item async for page in pages for item in objects_of(page)])
            now = datetime.now(UTC)
            is_settled = arrivals.is_settled(now, self.quiet_seconds)
            if is_settled or now.timestamp() >= self.wait_until:
                yield TriggerEvent({"objects": arrivals.objects, "is_settled": is_settled})
                return
            await asyncio.sleep(self.poll_seconds)
