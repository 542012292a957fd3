"""EMR on clusters for the stand-in: clusters run their steps for real, one after the other, and end as requested.

Clusters and steps outlive the process. Requests are the concern of `clusters_api`.
"""

import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from orchard_jobs.contract.locations import below

from orchard_sandbox.emr.submissions import RequestError, read_step, refuse_unknown
from orchard_sandbox.emr.submitted_script import SparkSubmitJob
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.life_cycle import LOST, Ending, Run
from orchard_sandbox.job_execution.records import Record, now

_MEMBERS = {
    *("Name", "LogUri", "ReleaseLabel", "Instances", "Steps", "Applications", "Configurations", "VisibleToAllUsers", "Tags"),
    *("JobFlowRole", "ServiceRole", "SecurityConfiguration", "StepConcurrencyLevel", "AutoTerminationPolicy"),
    *("ManagedScalingPolicy", "BootstrapActions", "EbsRootVolumeSize", "ScaleDownBehavior", "CustomAmiId"),
}
_POLL_SECONDS = 0.05


@dataclass(kw_only=True)
class Step(Run):
    """One step: what was asked for, and where it stands."""

    STATES = {"running": "RUNNING", "ending": "CANCEL_PENDING"}
    ENDS = {"succeeded": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED"}
    request: dict[str, Any]
    created: datetime = field(default_factory=now)
    started: datetime | None = None
    ended: datetime | None = None
    details: str = ""

    def headline(self) -> tuple[str, str]:
        """Return its state, and why it failed."""
        return self.state, self.details

    def lose(self, reason: str) -> None:
        """End a step that nothing executes any more."""
        self.end(Ending("failed", reason))

    def end(self, ending: Ending) -> None:
        """Come to an end."""
        self.details, self.ended = ending.reason if ending.kind == "failed" else "", now()
        self.change(self.ENDS[ending.kind])


@dataclass(kw_only=True)
class Cluster(Record):
    """One cluster: what was asked for, and where it stands; its steps lie beside its own record."""

    request: dict[str, Any]
    created: datetime = field(default_factory=now)
    ended: datetime | None = None
    details: str = ""
    is_ending: bool = False
    steps: list[Step] = field(default_factory=list, init=False)

    @property
    def is_over(self) -> bool:
        """Whether the cluster has come to its end."""
        return self.state in ("TERMINATED", "TERMINATED_WITH_ERRORS")

    @property
    def is_kept(self) -> bool:
        """Whether it waits for more steps when it has none."""
        return bool(self.request["Instances"].get("KeepJobFlowAliveWhenNoSteps", False))

    @property
    def next_step(self) -> Step | None:
        """The first step that has not ended."""
        return next((step for step in self.steps if not step.is_over), None)

    def end(self, reason: str) -> None:
        """End the cluster and its steps."""
        self.details, self.is_ending = self.details or reason, True
        for step in self.steps:
            step.cancel()


class Clusters:
    """All clusters, which are kept in a folder."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self._folder, self._machine = folder, machine
        self.lock = threading.RLock()
        self.clusters: dict[str, Cluster] = {}
        for cluster in Cluster.read_all(folder):
            cluster.steps = sorted(Step.read_all(cluster.folder / "steps"), key=lambda step: step.created)
            self.clusters[cluster.id] = cluster
            for step in cluster.steps:
                if step.state in Step.STATES.values():
                    step.lose(LOST)
            self._begin(cluster)

    def find_step(self, name: str) -> Step | None:
        """Return a step of any cluster."""
        return next((step for cluster in list(self.clusters.values()) for step in cluster.steps if step.id == name), None)

    def run_job_flow(self, given: Mapping[str, Any]) -> Cluster:
        """Make a cluster and start it."""
        refuse_unknown(given, _MEMBERS)
        if given.get("StepConcurrencyLevel", 1) != 1:
            raise RequestError("StepConcurrencyLevel is 1 here")
        if not re.fullmatch(r"emr-[67]\.\d{1,2}\.\d", given.get("ReleaseLabel", "")):
            raise RequestError(f"The supplied release label is invalid: {given.get('ReleaseLabel')}.")
        if not given.get("JobFlowRole") or not given.get("ServiceRole"):
            raise RequestError("ServiceRole and JobFlowRole are needed.")
        name = _new_id("j")
        cluster = Cluster(folder=self._folder / name, states=["STARTING"], request={**given, "Steps": []})
        self.add_steps(cluster, given.get("Steps") or [])
        self.clusters[name] = cluster
        self._begin(cluster)
        return cluster

    def cluster(self, name: str) -> Cluster:
        """Return a cluster."""
        if name not in self.clusters:
            raise RequestError(f"Cluster id '{name}' is not valid.")
        return self.clusters[name]

    def step(self, cluster: Cluster, name: str) -> Step:
        """Return a step of a cluster."""
        for step in cluster.steps:
            if step.id == name:
                return step
        raise RequestError(f"Step id '{name}' is not valid.")

    def add_steps(self, cluster: Cluster, requests: list[dict[str, Any]]) -> list[Step]:
        """Add steps to a cluster that has not ended."""
        for request in requests:
            read_step(request)
        with self.lock:
            if cluster.is_over or cluster.is_ending:
                raise RequestError("A job flow that is shutting down, terminated, or finished may not be modified.")
            added = [Step(folder=cluster.folder / "steps" / _new_id("s"), states=["PENDING"], request=one) for one in requests]
            for step in added:
                step.save()
            cluster.steps += added
            cluster.save()
        return added

    def _begin(self, cluster: Cluster) -> None:
        if not cluster.is_over:
            threading.Thread(target=self._lead, args=(cluster,), name=cluster.id, daemon=True).start()

    def _lead(self, cluster: Cluster) -> None:
        for state in ("STARTING", "BOOTSTRAPPING"):
            cluster.change(state)
        last = "TERMINATED"
        while not cluster.is_ending:
            step = cluster.next_step
            if step is None:
                self._wait(cluster)
                continue
            cluster.change("RUNNING")
            self._run(cluster, step)
            if step.state == "FAILED" and step.request.get("ActionOnFailure") == "TERMINATE_CLUSTER":
                last = "TERMINATED_WITH_ERRORS"
                cluster.end("Shut down as step failed")
        cluster.change("TERMINATING")
        for step in cluster.steps:
            if not step.is_over:
                step.end(Ending("cancelled"))
        cluster.ended = now()
        cluster.change(last)

    def _wait(self, cluster: Cluster) -> None:
        """Wait for a step, or end a cluster that has none left and is not kept alive."""
        with self.lock:  # no step comes between the look and the end
            if not cluster.is_kept and cluster.next_step is None:
                cluster.end("Steps completed")
        if not cluster.is_ending and cluster.state != "WAITING":
            cluster.change("WAITING")
        time.sleep(_POLL_SECONDS)

    def _run(self, cluster: Cluster, step: Step) -> None:
        """Run a step to its end."""
        if not step.is_cancelled:
            step.started = now()
            step.change("RUNNING")
        logs = cluster.request.get("LogUri")
        uri = below(logs, cluster.id, "steps", step.id) if logs else None
        job = SparkSubmitJob(self._machine, step.log_folder, read_step(step.request), uri, step.id)
        step.end(step.execute(job))


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(6).upper()}"
