"""Base of operators whose jobs can outlive the task: a retry reattaches to a running job, and never repeats a finished one."""

import gzip
import time
import zlib
from dataclasses import dataclass, replace
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.exceptions import BotoCoreError, ClientError
from orchard_jobs.contract.locations import S3Location
from orchard_jobs.errors import JobError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.storage import Warehouse

from orchard.launchers.attempts import Attempts
from orchard.launchers.request import JobRequest, planned_work, skip_without_work

log = escaping_logger(__name__)
LAST_LINES = 30
_FOUND = "job"
# What the providers' waiters report when a job took too long.
_OUT_OF_TIME = "max attempts reached"
# A job that is being ended: seconds between two polls, and seconds in all.
_ENDING_POLL_SECONDS, _ENDING_SECONDS = 1, 600


@dataclass(frozen=True)
class JobState:
    """A job as its vendor describes it.

    Attributes:
        state: the vendor's word.
        reason: why, in the vendor's words; may be empty.
        is_over: whether it has ended, in whatever way.
        is_ending: whether it is being ended, and still there.
    """

    state: str
    reason: str
    is_over: bool
    is_ending: bool = False


class ResumableJob:
    """A part of an operator that submits a job under a token, and follows it.

    Attributes:
        vendor: what messages call the job.
        attempt: the attempt that is made, or reached.
        under_way: the job of the attempt where a former try has recorded it: it is followed, and nothing is submitted.
    """

    vendor: str
    request: JobRequest
    warehouse: str
    attempt: int
    under_way: dict[str, str] | None = None

    def job_state(self, job: dict[str, str]) -> JobState:
        """Return a job's state at the vendor; a job that it no longer knows is over."""
        raise NotImplementedError

    def cancel(self, job: dict[str, str]) -> None:
        """Have the vendor end a job."""
        raise NotImplementedError

    def last_lines(self, job: dict[str, str]) -> list[str]:
        """Return the end of the job's log, the most useful line last; empty when it cannot be read."""
        raise NotImplementedError

    def begin(self, context: Any) -> str:
        """Skip the task when there is nothing to submit; return the token of the attempt that is made, or reached."""
        skip_without_work(self.warehouse, self.request, context)
        self.attempt, self.under_way = self._next_attempt(context)
        return self._attempts(context).token(self.attempt)

    def claim(self, context: Any) -> bool:
        """Claim to be the one who submits the attempt; False where another try did so before, and may have submitted it."""
        return self._attempts(context).claim(self.attempt)

    def record_start(self, context: Any, job: dict[str, str]) -> None:
        """Record the job that the token reached, before it is waited for."""
        self._attempts(context).record_start(self.attempt, job)
        context["ti"].xcom_push(key=_FOUND, value={"attempt": self.attempt, "job": job})

    def recorded_job(self, context: Any) -> dict[str, str]:
        """Return the job that was waited for, in a task that has been resumed."""
        found = context["ti"].xcom_pull(task_ids=self.request.stage, key=_FOUND)
        self.attempt = found["attempt"]
        job: dict[str, str] = found["job"]
        return job

    def failure(self, context: Any, job: dict[str, str], why: object) -> JobError:
        """Return what to raise for a job that failed, or that could not be followed: the retry reattaches to the latter.

        Args:
            context: the task's.
            job: the job.
            why: what the provider says of it. Only a job that took too long is cancelled. One that cannot be reached for a while
                is still paid for, and may succeed.
        """
        seen = self._settled(job)
        if not seen.is_over and _OUT_OF_TIME in str(why):
            self.cancel(job)
            # A cancelled job runs on for a moment: reporting its end too early would start a second one.
            seen = self._settled(job, is_ending=True)
            seen = replace(seen, reason="; ".join(filter(None, ("it took longer than ORCHARD_JOB_MINUTES allows", seen.reason))))
        name = " of ".join(reversed(job.values()))
        if not seen.is_over:
            return JobError(
                f"lost contact with {self.vendor} {name} (last state {seen.state}): {why}; the retry will reattach to it"
            )
        self._attempts(context).record_end(self.attempt, seen.state, seen.reason)
        try:
            lines = self.last_lines(job)
        except Exception as error:  # why the job ended is worth more than why its log cannot be read
            log.warning("the job's log cannot be read: %s", error)
            lines = []
        for line in lines:
            log.error("job: %s", line)
        last = next((line for line in reversed(lines) if line.strip()), "its log does not exist (yet)")
        return JobError(f"{self.vendor} {name} is {seen.state}: {seen.reason or 'no reason given'}: {last}")

    def _attempts(self, context: Any) -> Attempts:
        return Attempts(Warehouse.at(self.warehouse), planned_work(self.request, context))

    def _next_attempt(self, context: Any) -> tuple[int, dict[str, str] | None]:
        """Return the attempt to make or to reattach to, and its job where known, after recording an end that no task saw."""
        attempts = self._attempts(context)
        attempt = attempts.current
        job = attempts.started(attempt)
        if job is None:
            return attempt, None
        seen = self._settled(job)
        if not seen.is_over:
            log.info("reattaching to %s (attempt %s, state %s)", job, attempt, seen.state)
            return attempt, job
        skip_without_work(self.warehouse, self.request, context)  # it may have finished just now
        attempts.record_end(attempt, seen.state, seen.reason)
        return attempt + 1, None

    def _settled(self, job: dict[str, str], is_ending: bool = False) -> JobState:
        """Return a job's state, after waiting while it is being stopped: a new job would run at the same time.

        JobError when the vendor does not stop it: the retry waits for it again.
        """
        deadline = time.monotonic() + _ENDING_SECONDS
        while (seen := self.job_state(job)).is_ending or (is_ending and not seen.is_over):
            if time.monotonic() > deadline:
                raise JobError(
                    f"{self.vendor} {job} is {seen.state} and has not stopped; cancel it in the console, then clear the task"
                )
            time.sleep(_ENDING_POLL_SECONDS)
        return seen


def stored_lines(aws_conn_id: str | None, folder: str, streams: tuple[str, ...]) -> list[str]:
    """Return the last lines of each of a job's gzipped streams in an S3 folder; those that cannot be read are logged and left."""
    lines: list[str] = []
    for stream in streams:
        place = S3Location.parse(folder).join(f"{stream}.gz")
        try:
            packed = S3Hook(aws_conn_id).get_key(place.key, place.bucket).get()["Body"].read()
            lines += gzip.decompress(packed).decode(errors="replace").splitlines()[-LAST_LINES:]
        except (ClientError, BotoCoreError, OSError, EOFError, zlib.error) as error:
            log.warning("the job's log %s cannot be read: %s", place.uri, error)
    return lines
