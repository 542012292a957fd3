"""Target `emr`: steps on an existing EMR cluster, or on a new one that ends with its step."""

import math
from dataclasses import dataclass
from typing import Any, NoReturn

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.amazon.aws.triggers.emr import EmrAddStepsTrigger
from airflow.providers.amazon.aws.utils.waiter_with_logging import wait
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from botocore.exceptions import ClientError
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.locations import below, folder_uri, prefix_of
from orchard_jobs.escaping import escaping_logger

from orchard.deployment.deployed_package import check_package
from orchard.deployment.destinations import EMR_RELEASE
from orchard.deployment.package import ENTRY, ZIP
from orchard.launchers.emr_hook import NamingEmrHook
from orchard.launchers.request import JobRequest, check_deployed, emr_conf, job_argv
from orchard.launchers.resumable_job import JobState, ResumableJob, stored_lines
from orchard.settings import Settings

log = escaping_logger(__name__)
# A new cluster has to start first; on an existing one, steps wait for their turn.
_START_MINUTES, _QUEUE_MINUTES = 30, 60
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")
# Unpacks the environment for the driver and runs the words after it there; Spark itself unpacks it for the executors alone.
_UNPACK = (
    'set -euo pipefail; folder=$(mktemp -d); trap \'rm -rf "$folder"\' EXIT; cd "$folder"; mkdir environment; '
    'aws s3 cp "$0" - | tar -xz -C environment; "$@"'
)
# YARN gives 12 GB of one half as large, which an executor of 12 GB with its overhead exceeds.
_INSTANCE = "m6i.2xlarge"
_CLUSTER = {
    "ReleaseLabel": EMR_RELEASE,
    "Applications": [{"Name": "Spark"}],
    "ServiceRole": "EMR_DefaultRole",
    "JobFlowRole": "EMR_EC2_DefaultRole",
    "VisibleToAllUsers": True,
}
_SPOT = {
    "SpotSpecification": {
        "TimeoutDurationMinutes": 10,
        "TimeoutAction": "SWITCH_TO_ON_DEMAND",
        "AllocationStrategy": "price-capacity-optimized",
    }
}


def _fleet(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    instances = [{"InstanceType": _INSTANCE, "WeightedCapacity": 1}]
    return {"Name": name, "InstanceFleetType": kind, "InstanceTypeConfigs": instances, **fields}


@dataclass(frozen=True)
class EmrLauncher:
    """Adds steps through EmrAddStepsOperator; the deployed package is what they run."""

    settings: Settings

    def operator(self, request: JobRequest) -> BaseOperator:
        """Return the operator; it waits in the triggerer, where the wait holds no worker slot."""
        settings = self.settings
        cluster = settings.emr.cluster
        given = cluster if isinstance(cluster, str) else None
        minutes = settings.jobs.minutes + (_QUEUE_MINUTES if given else _START_MINUTES)
        return AddEmrStep(
            request=request,
            warehouse=settings.warehouse,
            new_cluster=None if given else self._new_cluster(request, cluster),
            logs_uri=settings.jobs.logs_uri,
            task_id=request.stage,
            trigger_rule=request.trigger_rule,
            pool="spark",
            aws_conn_id=settings.aws_conn_id,
            # A new cluster's id is known once it is made.
            job_flow_id=given or "",
            steps=[
                {
                    "Name": f"orchard-{request.stage}",
                    "ActionOnFailure": "CONTINUE" if given else "TERMINATE_CLUSTER",
                    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": self._spark_submit(request)},
                }
            ],
            deferrable=True,
            waiter_delay=settings.runs.job_poll_seconds,
            waiter_max_attempts=math.ceil(minutes * 60 / settings.runs.job_poll_seconds),
        )

    def prepare(self, backbone: Backbone) -> None:
        """See that the backbone and the package were deployed, and are whole; ConfigurationError when not."""
        check_deployed(self.settings, backbone)
        check_package(str(self.settings.jobs.uri), self.settings.aws_conn_id, (ZIP, ENTRY))

    def _spark_submit(self, request: JobRequest) -> list[str]:
        """Return the step's words. The driver is the step's own process: in cluster mode it would be a container of YARN, which
        a cancelled step leaves running, and whose words are not in the step's log.
        """
        settings = self.settings
        conf = emr_conf(settings)
        if settings.jobs.environment:
            conf["spark.pyspark.python"] = "./environment/bin/python"
        options = [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
        words = ["spark-submit", "--deploy-mode", "client", *options, below(str(settings.jobs.uri), "run_job.py")]
        unpack = ["bash", "-c", _UNPACK, settings.jobs.environment] if settings.jobs.environment else []
        return [*unpack, *words, *job_argv(request, settings)]

    def _new_cluster(self, request: JobRequest, given: Any) -> dict[str, Any]:
        """Return the fields of a cluster that ends with its last step: those that are given, and defaults for the others."""
        settings = self.settings
        fleet = {
            "KeepJobFlowAliveWhenNoSteps": False,
            "TerminationProtected": False,
            "InstanceFleets": [
                _fleet("primary", "MASTER", TargetOnDemandCapacity=1),
                _fleet("core", "CORE", TargetSpotCapacity=settings.jobs.executors, LaunchSpecifications=_SPOT),
            ],
        }
        tags = [{"Key": name, "Value": value} for name, value in (settings.jobs.tags | {"orchard": request.stage}).items()]
        own: dict[str, Any] = _CLUSTER | {"LogUri": prefix_of(settings.jobs.logs_uri), "Tags": tags}
        instances = fleet | given.get("Instances", {})
        if "InstanceGroups" in instances or "MasterInstanceType" in instances:
            instances.pop("InstanceFleets")
        # Whatever the setting says, the cluster ends by itself, even if no task is left to end it.
        made: dict[str, Any] = (
            own | given | {"Instances": instances | {"KeepJobFlowAliveWhenNoSteps": False, "TerminationProtected": False}}
        )
        return made


class EmrStepTrigger(EmrAddStepsTrigger):
    """The stock trigger; it also cancels the steps when a user ends the waiting task."""

    def __init__(self, *, is_own_cluster: bool, **fields: Any) -> None:
        super().__init__(**fields)
        self.serialized_fields = {**self.serialized_fields, "is_own_cluster": is_own_cluster}

    async def on_kill(self) -> None:
        """Cancel the steps, or terminate their own cluster."""
        fields = self.serialized_fields
        async with await self.hook().get_async_conn() as client:
            operation, given = _cancellation(fields["job_flow_id"], fields["step_ids"], fields["is_own_cluster"])
            await getattr(client, operation)(**given)


def _cancellation(cluster_id: str, step_ids: list[str], is_own_cluster: bool) -> tuple[str, dict[str, Any]]:
    """Return the call that ends steps, or their own cluster."""
    if is_own_cluster:
        return "terminate_job_flows", {"JobFlowIds": [cluster_id]}
    given = {"ClusterId": cluster_id, "StepIds": step_ids, "StepCancellationOption": "TERMINATE_PROCESS"}
    return "cancel_steps", given


class AddEmrStep(ResumableJob, EmrAddStepsOperator):
    """The stock operator, and what Orchard adds to it.

    - EMR has no token. Here the step's name carries one, and so does the name of a new cluster. A retry looks for the name and
      reaches the running step; after a recorded failure the next attempt begins.
    - If the task is killed, neither the stock operator nor its trigger cancels anything. Here the step is cancelled, or its own
      cluster is terminated.
    - The stock operator reports neither EMR's details of a failed step nor the driver's output. Here the task's log has both.
    """

    aws_hook_class = NamingEmrHook
    vendor = "EMR step"

    def __init__(
        self, *, request: JobRequest, warehouse: str, new_cluster: dict[str, Any] | None, logs_uri: str, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.request = request
        self.warehouse = warehouse
        self.new_cluster = new_cluster
        self.logs_uri = logs_uri
        self._job: dict[str, str] | None = None

    def execute(self, context: Any) -> Any:
        """Add the step of the current attempt, or reach it where it runs."""
        name = f"orchard-{self.request.stage}-{self.begin(context)}"
        step: Any = self.steps[0]
        self.steps = [{**step, "Name": name}]
        hook: Any = self.hook
        hook.on_added = lambda cluster_id, step_id: self._note(context, cluster_id, step_id)
        hook.claim = lambda: self.claim(context)
        if self.under_way is not None:
            self.job_flow_id, hook.step_id = self.under_way["cluster_id"], self.under_way["step_id"]
        elif self.new_cluster is not None:
            self.job_flow_id = hook.find_or_create_cluster(name, self.new_cluster, self.steps)
        try:
            added = super().execute(context)
            self._wait(added[0])
            return added
        except AirflowException as error:
            if self._job is None:
                raise
            raise self.failure(context, self._job, error) from error

    def defer(self, *, trigger: Any, **arguments: Any) -> NoReturn:
        """Wait with a trigger that cancels what it waits for when it is killed."""
        _, fields = trigger.serialize()
        super().defer(trigger=EmrStepTrigger(**fields, is_own_cluster=self.new_cluster is not None), **arguments)

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> str:
        """End well, or record the bad end and raise JobError with its reason."""
        try:
            return str(super().execute_complete(context, event))
        except AirflowException as error:
            raise self.failure(context, self.recorded_job(context), (event or {}).get("message", error)) from error

    def on_kill(self) -> None:
        """Cancel the step, and end its own cluster."""
        if self._job is not None:
            self.cancel(self._job)

    def job_state(self, job: dict[str, str]) -> JobState:
        """See ResumableJob."""
        try:
            status = self._client.describe_step(ClusterId=job["cluster_id"], StepId=job["step_id"])["Step"]["Status"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidRequestException":
                raise
            return JobState("GONE", f"EMR no longer knows it: {error}", is_over=True)
        details, state = status.get("FailureDetails", {}), status["State"]
        reasons = [details.get("Reason"), details.get("Message"), status.get("StateChangeReason", {}).get("Message")]
        is_over = state in _OVER
        if is_over and state != "COMPLETED" and self.new_cluster is not None:
            # When a cluster could not start, only the cluster has the reason.
            cluster = self._client.describe_cluster(ClusterId=job["cluster_id"])["Cluster"]
            reasons.append(cluster["Status"].get("StateChangeReason", {}).get("Message"))
        reason = "; ".join(dict.fromkeys(text for text in reasons if text))
        return JobState(state, reason, is_over, is_ending=state == "CANCEL_PENDING")

    def cancel(self, job: dict[str, str]) -> None:
        """See ResumableJob."""
        operation, given = _cancellation(job["cluster_id"], [job["step_id"]], self.new_cluster is not None)
        answer = getattr(self._client, operation)(**given)
        for step in answer.get("CancelStepsInfoList", []):
            if step["Status"] == "FAILED":
                log.warning("EMR did not cancel step %s: %s", step["StepId"], step.get("Reason"))

    def last_lines(self, job: dict[str, str]) -> list[str]:
        """Return the last lines of the step's log: spark-submit's own, then the driver's."""
        described = self._client.describe_cluster(ClusterId=job["cluster_id"])["Cluster"]
        logs = folder_uri(str(described.get("LogUri") or self.logs_uri))
        return stored_lines(self.aws_conn_id, below(logs, job["cluster_id"], "steps", job["step_id"]), ("stderr", "stdout"))

    def _note(self, context: Any, cluster_id: str, step_id: str) -> None:
        self._job = {"cluster_id": cluster_id, "step_id": step_id}
        self.record_start(context, self._job)

    def _wait(self, step_id: str) -> None:
        """Wait here for the step's end, where it is not waited for in the triggerer."""
        wait(
            waiter=self._client.get_waiter("step_complete"),
            waiter_delay=self.waiter_delay,
            waiter_max_attempts=self.waiter_max_attempts,
            args={"ClusterId": self.job_flow_id, "StepId": step_id},
            failure_message=f"EMR step {step_id} failed",
            status_message="EMR step is",
            status_args=["Step.Status.State", "Step.Status.StateChangeReason"],
        )

    @property
    def _client(self) -> Any:
        return self.hook.conn
