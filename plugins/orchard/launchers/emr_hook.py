"""EMR's steps and clusters by name: EMR has no token, so the name of what is submitted says which attempt it is."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook
from botocore.config import Config
from orchard_jobs.escaping import escaping_logger

log = escaping_logger(__name__)
# How long another try may take from its claim of an attempt until EMR lists what it has submitted.
_CLAIMED_SECONDS, _CLAIMED_POLL_SECONDS = 60.0, 5.0
# Older clusters than a job can be are not looked at: an account may have thousands.
_LISTED_DAYS = 9


class NamingEmrHook(EmrHook):
    """The stock hook, which also finds by name what an earlier try submitted, and reports a step's id at once.

    Attributes:
        step_id: the step, where it is known.
        claim: called before anything is submitted; tells whether no other try has called it.
        on_added: called with the ids of the cluster and its step.
    """

    step_id: str | None = None
    claim: Callable[[], bool]
    on_added: Callable[[str, str], None]

    def add_job_flow_steps(self, job_flow_id: str, steps: Any = None, *rest: Any, **named: Any) -> list[str]:
        """Return the id of the step with the name; add the step unless it exists."""
        name = steps[0]["Name"]
        found = self.step_id or self._found(lambda: self._step_named(job_flow_id, name))
        if found is None:
            found = str(self._once.add_job_flow_steps(JobFlowId=job_flow_id, Steps=steps)["StepIds"][0])
        self.on_added(job_flow_id, found)
        return [found]

    def find_or_create_cluster(self, name: str, fields: dict[str, Any], steps: list[dict[str, Any]]) -> str:
        """Return the id of the cluster with a name, even one that has ended; create it with its steps if there is none."""
        return self._found(lambda: self._cluster_named(name)) or self._make_cluster(name, fields, steps)

    def _found(self, look: Callable[[], str | None]) -> str | None:
        """Return what is there; where another try has claimed to submit it, wait until it appears or time is up."""
        found = look()
        if found is None and not self.claim():
            deadline = time.monotonic() + _CLAIMED_SECONDS
            log.info("an earlier try may have submitted this; waiting up to %s s for it to appear", _CLAIMED_SECONDS)
            while (found := look()) is None and time.monotonic() < deadline:
                time.sleep(_CLAIMED_POLL_SECONDS)
        return found

    def _step_named(self, cluster_id: str, name: str) -> str | None:
        steps = self._pages("list_steps", "Steps", ClusterId=cluster_id)
        return next((step["Id"] for step in steps if step["Name"] == name), None)

    def _cluster_named(self, name: str) -> str | None:
        since = datetime.now(UTC) - timedelta(days=_LISTED_DAYS)
        clusters = self._pages("list_clusters", "Clusters", CreatedAfter=since)
        return next((cluster["Id"] for cluster in clusters if cluster["Name"] == name), None)

    def _make_cluster(self, name: str, fields: dict[str, Any], steps: list[dict[str, Any]]) -> str:
        made: str = self._once.run_job_flow(**fields, Name=name, Steps=steps)["JobFlowId"]
        return made

    @cached_property
    def _once(self) -> Any:
        """A client that asks once: asked again after its answer was lost, EMR would start a second job."""
        config = Config(retries={"total_max_attempts": 1})
        return EmrHook(aws_conn_id=self.aws_conn_id, region_name=self.region_name, config=config).conn

    def _pages(self, operation: str, key: str, **given: Any) -> Iterator[dict[str, Any]]:
        client: Any = self.conn
        for page in client.get_paginator(operation).paginate(**given):
            yield from page[key]
