"""EMR on clusters for the stand-in: clusters that run their steps one after the other, truly, and end as they were told to.

Clusters and steps outlive the process. Requests are the concern of `emr_api`.
"""

import json
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchard_sandbox.aws_responses import ApiError
from orchard_sandbox.emr_clusters import Cluster, Step, invalid, submission_of
from orchard_sandbox.faults import Faults
from orchard_sandbox.job_runs import CANCEL_SECONDS, Pace
from orchard_sandbox.spark_submission import last_error
from orchard_sandbox.submitted_job import Machine, MissingFileError, SubmittedJob

_MEMBERS = {
    "Name", "LogUri", "ReleaseLabel", "Instances", "Steps", "Applications", "Configurations", "VisibleToAllUsers", "JobFlowRole",
    "ServiceRole", "Tags", "SecurityConfiguration", "StepConcurrencyLevel", "AutoTerminationPolicy", "ManagedScalingPolicy",
    "BootstrapActions", "EbsRootVolumeSize", "ScaleDownBehavior", "CustomAmiId",
}  # fmt: skip
_POLL_SECONDS = 0.05


class Emr:
    """All clusters.

    Args:
        folder: where they and the steps' logs are kept.
        machine: what runs steps.
        pace: the clock.
        faults: what the steps suffer.
    """

    def __init__(self, folder: Path, machine: Machine, pace: Pace, faults: Faults) -> None:
        self._folder, self._machine, self._pace, self._faults = folder, machine, pace, faults
        self._lock = threading.RLock()
        self._clusters: dict[str, Cluster] = {}
        for path in sorted(folder.glob("*/cluster.json")):
            fields = json.loads(path.read_text())
            fields["steps"] = [Step(**step) for step in fields["steps"]]
            cluster = Cluster(**fields)
            self._clusters[cluster.id] = cluster
            for step in cluster.steps:
                if step.state in ("RUNNING", "CANCEL_PENDING"):
                    self._end(cluster, step, "FAILED", "The stand-in ended while the step ran, and its processes with it.")
            self._start(cluster)

    def run_job_flow(self, given: Mapping[str, Any]) -> Cluster:
        """Make a cluster and start it."""
        unknown = given.keys() - _MEMBERS
        if unknown:
            raise invalid(f"{', '.join(sorted(unknown))} is not known here")
        if given.get("StepConcurrencyLevel", 1) != 1:
            raise invalid("StepConcurrencyLevel is 1 here")
        if not re.fullmatch(r"emr-[67]\.\d{1,2}\.\d", given.get("ReleaseLabel", "")):
            raise invalid(f"The supplied release label is invalid: {given.get('ReleaseLabel')}.")
        if not given.get("JobFlowRole") or not given.get("ServiceRole"):
            raise invalid("ServiceRole and JobFlowRole are needed.")
        cluster = Cluster("j-" + secrets.token_hex(6).upper(), dict(given), time.time())
        cluster.request.pop("Steps", None)
        with self._lock:
            self._clusters[cluster.id] = cluster
            self.add_steps(cluster, given.get("Steps") or [])
        self._start(cluster)
        return cluster

    def cluster(self, name: str) -> Cluster:
        """Return a cluster."""
        if name not in self._clusters:
            raise invalid(f"Cluster id '{name}' is not valid.")
        return self._clusters[name]

    def clusters(self) -> list[Cluster]:
        """Return all clusters, the newest first."""
        return sorted(self._clusters.values(), key=lambda cluster: cluster.created, reverse=True)

    def step(self, cluster: Cluster, name: str) -> Step:
        """Return a step of a cluster."""
        for step in cluster.steps:
            if step.id == name:
                return step
        raise invalid(f"Step id '{name}' is not valid.")

    def add_steps(self, cluster: Cluster, requests: list[dict[str, Any]]) -> list[Step]:
        """Add steps to a cluster that has not ended."""
        for request in requests:
            submission_of(request)
        with self._lock:
            if cluster.is_over or cluster.is_ending:
                raise invalid("A job flow that is shutting down, terminated, or finished may not be modified.")
            added = [Step("s-" + secrets.token_hex(6).upper(), dict(request), time.time()) for request in requests]
            cluster.steps += added
            self._save(cluster)
        return added

    def cancel(self, cluster: Cluster, name: str) -> tuple[str, str]:
        """Have a step end as cancelled; return SUBMITTED or FAILED, and why."""
        step = self.step(cluster, name)
        if step.is_over:
            return "FAILED", f"Step {name} is already completed: it is {step.state}."
        step.is_cancelled = True
        return "SUBMITTED", ""

    def terminate(self, cluster: Cluster) -> None:
        """Have a cluster end, and its steps with it."""
        if cluster.request["Instances"].get("TerminationProtected"):
            raise ApiError("ValidationException", f"Job flow {cluster.id} is termination-protected.")
        cluster.reason = cluster.reason or "Terminated by user request"
        cluster.is_ending = True

    def _start(self, cluster: Cluster) -> None:
        if not cluster.is_over:
            threading.Thread(target=self._lead, args=(cluster,), name=cluster.id, daemon=True).start()

    def _lead(self, cluster: Cluster) -> None:
        for state in ("STARTING", "BOOTSTRAPPING"):
            self._change(cluster, state)
            time.sleep(self._pace.state_seconds)
        is_kept = cluster.request["Instances"].get("KeepJobFlowAliveWhenNoSteps", False)
        failed = False
        while not cluster.is_ending:
            step = next((step for step in cluster.steps if not step.is_over), None)
            if step is None:
                with self._lock:  # no step comes between the look and the end
                    if not is_kept and all(step.is_over for step in cluster.steps):
                        cluster.reason, cluster.is_ending = "Steps completed", True
                if cluster.state != "WAITING" and not cluster.is_ending:
                    self._change(cluster, "WAITING")
                time.sleep(_POLL_SECONDS)
                continue
            self._run(cluster, step)
            if step.state == "FAILED" and step.request.get("ActionOnFailure") in ("TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW"):
                failed, cluster.reason, cluster.is_ending = True, "Shut down as step failed", True
            elif step.state == "FAILED" and step.request.get("ActionOnFailure") == "CANCEL_AND_WAIT":
                self._cancel_all(cluster, "CANCELLED")
        self._change(cluster, "TERMINATING")
        self._cancel_all(cluster, "CANCELLED")
        time.sleep(self._pace.state_seconds)
        cluster.ended = time.time()
        self._change(cluster, "TERMINATED_WITH_ERRORS" if failed else "TERMINATED")

    def _run(self, cluster: Cluster, step: Step) -> None:
        """Run a step to its end."""
        if step.is_cancelled:
            return self._end(cluster, step, "CANCELLED")
        self._change(cluster, "RUNNING")
        step.state, step.started = "RUNNING", time.time()
        self._save(cluster)
        fault = self._faults.take(("no_execution",))
        if fault:
            time.sleep(fault.seconds)
            return self._end(cluster, step, "FAILED", "execution is switched off in this stand-in, nothing was run.")
        logs = cluster.request.get("LogUri")
        uri = f"{logs.rstrip('/')}/{cluster.id}/steps/{step.id}" if logs else None
        job = SubmittedJob(self._machine, self._folder / cluster.id / step.id, submission_of(step.request), uri, step.id)
        try:
            job.start(job.fetch())
            self._watch(cluster, step, job)
        except MissingFileError as error:
            job.write_error(str(error))
            self._end(cluster, step, "FAILED", str(error))
        finally:
            job.put_logs(is_last=True)
            job.remove_files()

    def _watch(self, cluster: Cluster, step: Step, job: SubmittedJob) -> None:
        fault, begin = self._faults.take(("kill_job", "out_of_memory")), time.monotonic()
        is_told = False
        while job.status() is None:
            job.put_logs()
            if fault and time.monotonic() - begin >= fault.seconds:
                job.end(0)
            if (step.is_cancelled or cluster.is_ending) and not is_told:
                is_told, step.state = True, "CANCEL_PENDING"
                self._save(cluster)
                job.end(CANCEL_SECONDS)
            time.sleep(_POLL_SECONDS)
        status = job.status() or 0
        job.put_logs(is_last=True)
        if is_told:
            return self._end(cluster, step, "CANCELLED")
        if status == 0:
            return self._end(cluster, step, "COMPLETED")
        if fault and fault.kind == "out_of_memory":
            job.write_error("java.lang.OutOfMemoryError: Java heap space")
        self._end(cluster, step, "FAILED", last_error(job.read_lines(), status))

    def _cancel_all(self, cluster: Cluster, state: str) -> None:
        for step in cluster.steps:
            if not step.is_over:
                self._end(cluster, step, state)

    def _end(self, cluster: Cluster, step: Step, state: str, reason: str = "") -> None:
        step.reason, step.ended = reason, time.time()
        step.state = state
        self._save(cluster)

    def _change(self, cluster: Cluster, state: str) -> None:
        cluster.state = state
        self._save(cluster)

    def _save(self, cluster: Cluster) -> None:
        with self._lock:
            folder = self._folder / cluster.id
            folder.mkdir(parents=True, exist_ok=True)
            told = {**vars(cluster), "steps": [vars(step) for step in cluster.steps]}
            (folder / "cluster.part").write_text(json.dumps(told))
            os.replace(folder / "cluster.part", folder / "cluster.json")
