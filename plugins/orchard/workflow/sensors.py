"""wait_for_uploads: a batch is settled when it holds an object and its newest one is older than the quiet period.

Then the run waits while another run of the batch is active (see `landing_zone.batch_lock`).

The stock S3KeySensor reads one listing on its first poke, but sends a HEAD for every object once it is deferred.
S3KeysUnchangedSensor waits for its whole inactivity period even if a batch settled years ago. So this trigger only lists.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async
from orchard_jobs.contract.locations import S3Location
from orchard_jobs.errors import NoTableError

from orchard.landing_zone.batch_lock import AT_WORK, BatchLock, RunName
from orchard.landing_zone.keys import batch_id_of
from orchard.landing_zone.listing import ListedObject, objects_of
from orchard.landing_zone.periods import batch_cron, period_end, period_start
from orchard.settings import Settings
from orchard.settings.parsers import seconds
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard.workflow.assets import UPLOADS
from orchard.workflow.context import landing_zone_of
from orchard.workflow.error_mapping import airflow_value


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class ListingSummary:
    """What one listing says of a batch: objects, and when the newest came."""

    objects: int
    newest: datetime | None

    def is_settled(self, now: datetime, quiet_seconds: float) -> bool:
        """Tell whether there is an object and the newest is older than the quiet period."""
        return self.newest is not None and (now - self.newest).total_seconds() >= quiet_seconds


def summarize_listing(listed: Iterable[ListedObject]) -> ListingSummary:
    """Return what a listing says."""
    times = [item.uploaded_at for item in listed]
    return ListingSummary(len(times), max(times, default=None))


def batch_lock_of(context: Any, settings: Settings) -> BatchLock:
    """Return the lock of the running task's batch; its task has the asset `uploads` among its inlets.

    Raises:
        AirflowFailException: the run has no partition key, or one of another form.
    """
    run, ti = context["dag_run"], context["ti"]
    batch_id = airflow_value(batch_id_of(run.partition_key, settings))

    def is_in(name: RunName, states: Sequence[str]) -> bool:
        count: int = ti.get_dr_count(dag_id=name.dag_id, run_ids=[name.run_id], states=list(states))
        return count > 0

    return BatchLock(batch_id, RunName(run.dag_id, run.run_id), context["asset_state_store"][UPLOADS], is_in)


def _quiet_seconds(conf: Any, usual: float) -> float:
    """Return the quiet period of a run that was started with a conf; AirflowFailException when it is of another type."""
    try:
        return seconds(str(conf.get("quiet_seconds", usual)))
    except (AttributeError, ValueError) as error:
        problem = f"conf {conf!r} of this run gives no number of seconds as quiet_seconds: {error}"
        raise AirflowFailException(f'{problem}; start the run with one such as {{"quiet_seconds": 0}}, or with none') from error


class WaitForUploads(BaseOperator):
    """Wait, deferred, until the run's batch is settled and no other run works on it; skip if nothing comes.

    A batch whose period ended longer ago than the grace time is decided at once: settled, or skipped because it is empty.
    Else the wait lasts at most `wait_seconds`, then the run is skipped. A run's conf may set `quiet_seconds`.

    An upload started an announced run, so the end of its batch's period decides nothing: an upload to an old day may still be
    going on. The run is skipped if another run of the batch is going to list it later, or if the batch is empty.
    """

    def __init__(self, *, settings: Settings, is_announced: bool, **kwargs: Any) -> None:
        super().__init__(inlets=[UPLOADS], **kwargs)
        self.settings = settings
        self.is_announced = is_announced

    def execute(self, context: Any) -> None:
        """List once; continue if the batch is settled, skip if it stays empty, else defer."""
        lock = batch_lock_of(context, self.settings)
        coming = lock.run_that_will_list() if self.is_announced else None
        if coming is not None:
            raise AirflowSkipException(f"run {coming} will list batch {lock.batch_id} later and see all that this one would")
        lock.promise_listing()
        now, arrivals = _now(), self._list(lock.batch_id)
        quiet_seconds = _quiet_seconds(context["dag_run"].conf or {}, self.settings.landing_zone.quiet_seconds)
        if not arrivals.is_settled(now, quiet_seconds):
            if not self._is_decided(lock.batch_id, arrivals, now, quiet_seconds):
                self._defer(lock.batch_id, arrivals, now, quiet_seconds)
            self._skip_if_empty(lock, arrivals)
        self.log.info("settled batch_id=%s objects=%s newest=%s", lock.batch_id, arrivals.objects, arrivals.newest)
        self._acquire_lock(lock)

    def resume(self, context: Any, event: dict[str, Any]) -> None:
        """Continue if the trigger found the batch settled; skip if the wait was over first."""
        lock = batch_lock_of(context, self.settings)
        if not event["is_settled"]:
            lock.withdraw_promise()
            waited = self.settings.landing_zone.wait_seconds
            raise AirflowSkipException(
                f"batch {lock.batch_id} was not settled within {waited:.0f} s: {event['objects']} objects; "
                "start it again when its upload is over"
            )
        self.log.info("settled batch_id=%s objects=%s", lock.batch_id, event["objects"])
        self._acquire_lock(lock)

    def resume_turn(self, context: Any, event: dict[str, Any]) -> None:
        """Continue when the working run has ended; wait again if another run took the lock first."""
        self.log.info("ended dag_id=%s run_id=%s", event["dag_id"], event["run_id"])
        self._acquire_lock(batch_lock_of(context, self.settings))

    def _acquire_lock(self, lock: BatchLock) -> None:
        other = lock.run_at_work()
        if other is not None:
            self.log.info("waiting batch_id=%s for run %s, which works on it", lock.batch_id, other)
            trigger = RunEndTrigger(**asdict(other), poll_seconds=min(self.settings.runs.poll_seconds, 5.0))
            self.defer(trigger=trigger, method_name="resume_turn")
        lock.acquire()

    def _list(self, batch_id: str) -> ListingSummary:
        return summarize_listing(landing_zone_of(self.settings).list(self.settings.landing_zone.batch_prefix(batch_id)))

    def _is_decided(self, batch_id: str, arrivals: ListingSummary, now: datetime, quiet_seconds: float) -> bool:
        """Tell whether a batch that is not settled is not waited for."""
        if quiet_seconds == 0:
            return True  # whoever asks not to wait has finished the upload
        if self.is_announced:
            return not arrivals.objects
        ended = period_end(period_start(batch_id, self.settings.landing_zone.key_format), batch_cron(self.settings.runs))
        return now >= ended + timedelta(seconds=self.settings.landing_zone.grace_seconds)

    def _defer(self, batch_id: str, arrivals: ListingSummary, now: datetime, quiet_seconds: float) -> None:
        settings = self.settings
        self.log.info("waiting batch_id=%s objects=%s newest=%s", batch_id, arrivals.objects, arrivals.newest)
        trigger = UploadsTrigger(
            bucket=settings.landing_zone.bucket,
            prefix=settings.landing_zone.batch_prefix(batch_id),
            aws_conn_id=settings.aws_conn_id,
            quiet_seconds=quiet_seconds,
            poll_seconds=min(settings.runs.poll_seconds, max(quiet_seconds, 1.0)),
            wait_until=(now + timedelta(seconds=settings.landing_zone.wait_seconds)).timestamp(),
        )
        self.defer(trigger=trigger, method_name="resume")

    def _skip_if_empty(self, lock: BatchLock, arrivals: ListingSummary) -> None:
        if arrivals.objects or not self._is_complete(lock.batch_id):
            return
        # Others may have given way to this run: only once the promise is taken back is what comes theirs again.
        lock.withdraw_promise()
        if not self._list(lock.batch_id).objects:
            zone = self.settings.landing_zone
            where = S3Location(zone.bucket, zone.batch_prefix(lock.batch_id))
            raise AirflowSkipException(f"batch {lock.batch_id} is empty: no object under {where.uri}")

    def _is_complete(self, batch_id: str) -> bool:
        """Tell whether no version of the batch was left half-way. Such a version is completed even if its objects are gone."""
        tables = Tables.at(self.settings.warehouse)
        try:
            return BatchVersions.load(tables, self.settings.backbone.id, batch_id).is_complete(batch_id)
        except NoTableError:
            return True


class UploadsTrigger(BaseTrigger):
    """Fires when a prefix is settled, or when the wait is over (`wait_until`, seconds since 1970). One listing per poll.

    The deadline is kept in the trigger, because Airflow's own time-out of a deferral fails the task instead of skipping it.
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
                arrivals = summarize_listing([item async for page in pages for item in objects_of(page)])
            now = _now()
            is_settled = arrivals.is_settled(now, self.quiet_seconds)
            if is_settled or now.timestamp() >= self.wait_until:
                yield TriggerEvent({"objects": arrivals.objects, "is_settled": is_settled})
                return
            await asyncio.sleep(self.poll_seconds)


class RunEndTrigger(BaseTrigger):
    """Fires when a run is not running: it has ended, or it was cleared and is queued.

    The stock DagStateTrigger waits for a run to be *in* a state, so it would wait for a deleted run without end.
    """

    def __init__(self, dag_id: str, run_id: str, poll_seconds: float) -> None:
        BaseTrigger.__init__(self)
        self.dag_id = dag_id
        self.run_id = run_id
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "orchard.sensors.RunEndTrigger", {name: getattr(self, name) for name in ("dag_id", "run_id", "poll_seconds")}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the run is not running."""
        count = sync_to_async(RuntimeTaskInstance.get_dr_count)
        while await count(dag_id=self.dag_id, run_ids=[self.run_id], states=list(AT_WORK)):
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"dag_id": self.dag_id, "run_id": self.run_id})
