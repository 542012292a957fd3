"""EMR's API: moto's route with the stand-in's clusters behind it. moto's own backend, whose steps never end, is not used."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult, PaginatedResult
from moto.emr import urls

from orchard_sandbox.emr.api import CheckedResponse
from orchard_sandbox.emr.clusters import Cluster, Clusters, Step
from orchard_sandbox.s3.landing import ACCOUNT, REGION


class ElasticMapReduceResponse(CheckedResponse):
    """moto's handler of the API's requests, in front of the Clusters."""

    model_name = "emr"
    error_code = "InvalidRequestException"
    service: Clusters

    def run_job_flow(self) -> ActionResult:
        shown = _summary(self.service.run_job_flow(self.given))
        return ActionResult({"JobFlowId": shown["Id"], "ClusterArn": shown["ClusterArn"]})

    def describe_cluster(self) -> ActionResult:
        cluster = self.service.cluster(self.given["ClusterId"])
        return ActionResult({"Cluster": {**_summary(cluster), "LogUri": cluster.request.get("LogUri")}})

    def list_clusters(self) -> ActionResult:
        since = self.given.get("CreatedAfter")
        newest_first = sorted(self.service.clusters.values(), key=lambda cluster: cluster.created, reverse=True)
        wanted = [one for one in newest_first if since is None or one.created.timestamp() >= since.timestamp()]
        return PaginatedResult({"Clusters": [_summary(cluster) for cluster in wanted]})

    def terminate_job_flows(self) -> ActionResult:
        for name in self.given["JobFlowIds"]:
            self.service.cluster(name).end("Terminated by user request")
        return EmptyResult()

    def add_job_flow_steps(self) -> ActionResult:
        added = self.service.add_steps(self.service.cluster(self.given["JobFlowId"]), self.given["Steps"])
        return ActionResult({"StepIds": [step.id for step in added]})

    def list_steps(self) -> ActionResult:
        steps = self.service.cluster(self.given["ClusterId"]).steps
        return PaginatedResult({"Steps": [_step(step) for step in reversed(steps)]})

    def describe_step(self) -> ActionResult:
        cluster = self.service.cluster(self.given["ClusterId"])
        return ActionResult({"Step": _step(self.service.step(cluster, self.given["StepId"]))})

    def cancel_steps(self) -> ActionResult:
        cluster = self.service.cluster(self.given["ClusterId"])
        return ActionResult(
            {"CancelStepsInfoList": [_cancel(self.service.step(cluster, name)) for name in self.given["StepIds"]]}
        )


def _cancel(step: Step) -> dict[str, str]:
    if step.is_over:
        reason = f"Step {step.id} is already completed: it is {step.state}."
        return {"StepId": step.id, "Status": "FAILED", "Reason": reason}
    step.cancel()
    return {"StepId": step.id, "Status": "SUBMITTED"}


def _step(step: Step) -> dict[str, Any]:
    moments = {"Creation": step.created, "Start": step.started, "End": step.ended}
    status: dict[str, Any] = {"State": step.state, "StateChangeReason": {}, "Timeline": _timeline(moments)}
    if step.state == "FAILED":
        status["FailureDetails"] = {"Reason": "Unknown Error.", "Message": step.details}
    return {"Id": step.id, "Name": step.request["Name"], "Config": step.request["HadoopJarStep"], "Status": status}


def _summary(cluster: Cluster) -> dict[str, Any]:
    """Return what a listing shows of a cluster."""
    return {
        "Id": cluster.id,
        "Name": cluster.request["Name"],
        "Status": {
            "State": cluster.state,
            "StateChangeReason": {"Message": cluster.details} if cluster.details else {},
            "Timeline": _timeline({"Creation": cluster.created, "End": cluster.ended}),
        },
        "ClusterArn": f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/{cluster.id}",
    }


def _timeline(moments: Mapping[str, datetime | None]) -> dict[str, datetime]:
    return {f"{name}DateTime": moment for name, moment in moments.items() if moment}


def install(service: Clusters) -> None:
    """Put the service behind moto's route of EMR."""
    ElasticMapReduceResponse.service = service
    urls.url_paths["{0}/$"] = ElasticMapReduceResponse.dispatch
