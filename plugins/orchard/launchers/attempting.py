"""What operators share whose jobs outlive their submitter: a retry reaches a job that runs, and never replays one that ended."""

import gzip
import logging
import time
from dataclasses import dataclass
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.exceptions import ClientError
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse

from orchard.attempts import Attempts
from orchard.launchers.request import JobRequest, planned_work, skip_without_work

log = logging.getLogger(__name__)
POLL_SECONDS = 15
LAST_LINES = 30
_FOUND = "job"


@dataclass(frozen=True)
class Seen:
    """A job as its vendor tells of it.

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


class AttemptingJob:
    """A part of an operator that submits a job under a token, and follows it.

    Attributes:
        vendor: what messages call the job.
        cancels: whether a job that is given up, for it took too long, has to be cancelled from here.
    """

    vendor: str
    cancels: bool
    request: JobRequest
    warehouse: str
    attempt: int

    def see(self, job: dict[str, str]) -> Seen:
        """Ask the vendor after a job; one that it no longer knows is over."""
        raise NotImplementedError

    def cancel(self, job: dict[str, str]) -> None:
        """Have the vendor end a job."""
        raise NotImplementedError

    def last_lines(self, job: dict[str, str]) -> list[str]:
        """Return the end of what the job wrote, the line that tells most last; empty when it cannot be read."""
        raise NotImplementedError

    def begin(self, context: Any) -> str:
        """Skip the task when there is nothing to submit; return the token of the attempt that is made, or reached."""
        skip_without_work(self.warehouse, self.request, context)
        self.attempt = self._next_attempt(context)
        return self._attempts(context).token(self.attempt)

    def note_start(self, context: Any, job: dict[str, str]) -> None:
        """Record the job that the token reached, before it is waited for."""
        self._attempts(context).note_start(self.attempt, job)
        context["ti"].xcom_push(key=_FOUND, value={"attempt": self.attempt, "job": job})

    def noted(self, context: Any) -> dict[str, str]:
        """Return the job that was waited for, in a task that has been resumed."""
        found = context["ti"].xcom_pull(task_ids=self.request.stage, key=_FOUND)
        self.attempt = found["attempt"]
        job: dict[str, str] = found["job"]
        return job

    def bad_end(self, context: Any, job: dict[str, str]) -> JobError:
        """Return what to raise for a job that did not end well, or that could not be followed: the next try reaches that one."""
        seen = self._settled(job)
        if not seen.is_over and self.cancels:
            self.cancel(job)
            # A cancelled job runs on for a moment: an end that is told too early would start a second one beside it.
            while not seen.is_over:
                time.sleep(POLL_SECONDS / 15)
                seen = self.see(job)
        name = " of ".join(reversed(job.values()))
        if not seen.is_over:
            return JobError(f"{self.vendor} {name} is {seen.state}, and could not be followed: the next try reaches it")
        self._attempts(context).note_end(self.attempt, seen.state, seen.reason)
        lines = self.last_lines(job)
        for line in lines:
            log.error("job: %s", line)
        last = next((line for line in reversed(lines) if line.strip()), "its log is not there")
        return JobError(f"{self.vendor} {name} is {seen.state}: {seen.reason or 'no reason given'}: {last}")

    def _attempts(self, context: Any) -> Attempts:
        return Attempts(Warehouse.at(self.warehouse), planned_work(self.request, context))

    def _next_attempt(self, context: Any) -> int:
        """Return the attempt to make or to reach, after recording the end of a job that ended unseen."""
        attempts = self._attempts(context)
        attempt = attempts.current
        job = attempts.started(attempt)
        if job is None:
            return attempt
        seen = self._settled(job)
        if not seen.is_over:
            log.info("reaching %s of attempt %s, which is %s", job, attempt, seen.state)
            return attempt
        skip_without_work(self.warehouse, self.request, context)  # it may have finished just now
        attempts.note_end(attempt, seen.state, seen.reason)
        return attempt + 1

    def _settled(self, job: dict[str, str]) -> Seen:
        """Return a job, waiting while it is being ended: beside it a new one would be a second."""
        while (seen := self.see(job)).is_ending:
            time.sleep(POLL_SECONDS / 3)
        return seen


def stored_lines(aws_conn_id: str | None, folder: str, streams: tuple[str, ...]) -> list[str]:
    """Return the last lines of each of a job's gzipped streams in an S3 folder; those that cannot be read are logged and left."""
    lines: list[str] = []
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    for stream in streams:
        key = f"{prefix}/{stream}.gz"
        try:
            packed = S3Hook(aws_conn_id).get_key(key, bucket).get()["Body"].read()
            lines += gzip.decompress(packed).decode(errors="replace").splitlines()[-LAST_LINES:]
        except (ClientError, OSError, EOFError) as error:
            log.warning("the job's log s3://%s/%s cannot be read: %s", bucket, key, error)
    return lines
