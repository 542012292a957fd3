"""EMR's API: moto's route with the stand-in's clusters behind it. moto's own backend, whose steps never end, is not used."""

from typing import Any

import moto
from moto.core.responses import ActionResult, EmptyResult
from moto.emr import urls

from orchard_sandbox.aws_responses import MOTO_VERSION, CheckedResponse
from orchard_sandbox.emr import Emr
from orchard_sandbox.errors import SandboxError

_PAGE = 50


class ElasticMapReduceResponse(CheckedResponse):
    """moto's handler of the API's requests, in front of an Emr."""

    model_name = "emr"
    error_code = "InvalidRequestException"
    service: Emr

    def run_job_flow(self) -> ActionResult:
        cluster = self.service.run_job_flow(self._given())
        return ActionResult({"JobFlowId": cluster.id, "ClusterArn": cluster.summary(self.region)["ClusterArn"]})

    def describe_cluster(self) -> ActionResult:
        return ActionResult({"Cluster": self.service.cluster(self._given()["ClusterId"]).shown(self.region)})

    def list_clusters(self) -> ActionResult:
        given = self._given()
        states, since, until = given.get("ClusterStates"), given.get("CreatedAfter"), given.get("CreatedBefore")
        clusters = [
            cluster
            for cluster in self.service.clusters()
            if (not since or cluster.created >= since.timestamp()) and (not until or cluster.created < until.timestamp())
        ]
        found = [cluster for cluster in clusters if not states or cluster.state in states]
        return self._page("Clusters", [cluster.summary(self.region) for cluster in found])

    def terminate_job_flows(self) -> ActionResult:
        for name in self._given()["JobFlowIds"]:
            self.service.terminate(self.service.cluster(name))
        return EmptyResult()

    def add_job_flow_steps(self) -> ActionResult:
        given = self._given()
        added = self.service.add_steps(self.service.cluster(given["JobFlowId"]), given["Steps"])
        return ActionResult({"StepIds": [step.id for step in added]})

    def list_steps(self) -> ActionResult:
        given = self._given()
        steps = self.service.cluster(given["ClusterId"]).steps
        wanted = [
            step
            for step in reversed(steps)
            if step.id in given.get("StepIds", [step.id]) and step.state in given.get("StepStates", [step.state])
        ]
        return self._page("Steps", [step.shown() for step in wanted])

    def describe_step(self) -> ActionResult:
        given = self._given()
        return ActionResult({"Step": self.service.step(self.service.cluster(given["ClusterId"]), given["StepId"]).shown()})

    def cancel_steps(self) -> ActionResult:
        given = self._given()
        cluster = self.service.cluster(given["ClusterId"])
        told = [(name, *self.service.cancel(cluster, name)) for name in given["StepIds"]]
        infos = [{"StepId": name, "Status": status, **({"Reason": why} if why else {})} for name, status, why in told]
        return ActionResult({"CancelStepsInfoList": infos})

    def _page(self, key: str, found: list[dict[str, Any]]) -> ActionResult:
        first = int(self._given().get("Marker") or 0)
        more = {"Marker": str(first + _PAGE)} if len(found) > first + _PAGE else {}
        return ActionResult({key: found[first : first + _PAGE], **more})


def install(service: Emr) -> None:
    """Put the service behind moto's route of EMR.

    Raises:
        SandboxError: moto is another version, or has another route than the one that is replaced here.
    """
    if moto.__version__ != MOTO_VERSION or set(urls.url_paths) != {"{0}/$"}:
        raise SandboxError(
            f"moto {moto.__version__} has the routes {sorted(urls.url_paths)}, but the EMR stand-in was made for moto "
            f"{MOTO_VERSION}: install that one, or check moto.emr.urls and the names that emr_api.py imports"
        )
    ElasticMapReduceResponse.service = service
    urls.url_paths["{0}/$"] = ElasticMapReduceResponse.dispatch
