"""EMR Serverless's API: moto's routes with the stand-in's service behind them.

moto parses requests and serializes answers by botocore's model. Its own backend, whose jobs are SUCCESS at once, is not used.
"""

import moto
from moto.core.responses import ActionResult, EmptyResult, PaginatedResult
from moto.emrserverless import urls

from orchard_sandbox.aws_responses import MOTO_VERSION, CheckedResponse
from orchard_sandbox.emr_serverless import EmrServerless
from orchard_sandbox.emr_serverless_requests import invalid
from orchard_sandbox.errors import SandboxError
from orchard_sandbox.job_runs import CANCEL_SECONDS, TERMINAL, JobRun

_PATHS = {
    "{0}/applications$",
    "{0}/applications/(?P<applicationId>[^/]+)$",
    "{0}/applications/(?P<applicationId>[^/]+)/start$",
    "{0}/applications/(?P<applicationId>[^/]+)/stop$",
    "{0}/applications/(?P<applicationId>[^/]+)/jobruns$",
    "{0}/applications/(?P<applicationId>[^/]+)/jobruns/(?P<jobRunId>[^/]+)$",
}
_ADDED_PATHS = {
    "{0}/applications/(?P<applicationId>[^/]+)/(?P<rest>.+)$",
    "{0}/tags/(?P<resourceArn>.+)$",
}


class EmrServerlessResponse(CheckedResponse):
    """moto's handler of the API's requests, in front of an EmrServerless."""

    model_name = "emr-serverless"
    service: EmrServerless

    def create_application(self) -> ActionResult:
        shown = self.service.create_application(self.region, self._given()).shown
        return ActionResult({key: shown.get(key) for key in ("applicationId", "name", "arn")})

    def get_application(self) -> ActionResult:
        return ActionResult({"application": self.service.application(self.region, self._given()["applicationId"]).shown})

    def list_applications(self) -> ActionResult:
        states = self._given().get("states")
        shown = [record.shown for record in self.service.applications(self.region)]
        found = [{**one, "id": one["applicationId"]} for one in shown if not states or one["state"] in states]
        return PaginatedResult({"applications": found})

    def update_application(self) -> ActionResult:
        given = self._given()
        return ActionResult({"application": self.service.change_application(self.region, given["applicationId"], given).shown})

    def start_application(self) -> ActionResult:
        self.service.start_application(self.region, self._given()["applicationId"])
        return EmptyResult()

    def stop_application(self) -> ActionResult:
        self.service.stop_application(self.region, self._given()["applicationId"])
        return EmptyResult()

    def delete_application(self) -> ActionResult:
        self.service.delete_application(self.region, self._given()["applicationId"])
        return EmptyResult()

    def start_job_run(self) -> ActionResult:
        shown = self.service.start_job_run(self.region, self._given()).shown
        return ActionResult({key: shown[key] for key in ("applicationId", "jobRunId", "arn")})

    def _run(self) -> JobRun:
        given = self._given()
        return self.service.run(self.region, given["applicationId"], given["jobRunId"])

    def get_job_run(self) -> ActionResult:
        return ActionResult({"jobRun": self._run().shown})

    def cancel_job_run(self) -> ActionResult:
        run, seconds = self._run(), self._given().get("shutdownGracePeriodInSeconds")
        if run.is_over:
            raise invalid(f"Job run {run.record.shown['jobRunId']} has ended: its state is one of [{', '.join(TERMINAL)}]")
        run.cancel(CANCEL_SECONDS if seconds is None else seconds)
        return ActionResult({key: run.shown[key] for key in ("applicationId", "jobRunId")})

    def list_job_runs(self) -> ActionResult:
        given = self._given()
        runs = [run.shown for run in self.service.runs(self.region, given["applicationId"], given)]
        return PaginatedResult({"jobRuns": [{**shown, "id": shown["jobRunId"]} for shown in runs]})

    def list_job_run_attempts(self) -> ActionResult:
        return PaginatedResult({"jobRunAttempts": self._run().attempts})

    def get_dashboard_for_job_run(self) -> ActionResult:
        given = self._given()
        return ActionResult({"url": self.service.dashboard(self.region, given["applicationId"], given["jobRunId"])})

    def list_tags_for_resource(self) -> ActionResult:
        return ActionResult({"tags": self.service.tags(self.region, self._given()["resourceArn"])})

    def tag_resource(self) -> ActionResult:
        given = self._given()
        self.service.tags(self.region, given["resourceArn"]).update(given["tags"])
        self.service.save_tags(self.region, given["resourceArn"])
        return EmptyResult()

    def untag_resource(self) -> ActionResult:
        given = self._given()
        tags = self.service.tags(self.region, given["resourceArn"])
        for key in given["tagKeys"]:
            tags.pop(key, None)
        self.service.save_tags(self.region, given["resourceArn"])
        return EmptyResult()


def install(service: EmrServerless) -> None:
    """Put the service behind moto's routes of EMR Serverless.

    Raises:
        SandboxError: moto is another version, or has other routes than those that are replaced here.
    """
    if moto.__version__ != MOTO_VERSION or set(urls.url_paths) != _PATHS:
        raise SandboxError(
            f"moto {moto.__version__} has the routes {sorted(urls.url_paths)}, but the EMR Serverless stand-in was made for moto "
            f"{MOTO_VERSION}: install that one, or check moto.emrserverless.urls and the names that emr_serverless_api.py imports"
        )
    EmrServerlessResponse.service = service
    urls.url_paths.update(dict.fromkeys([*_PATHS, *_ADDED_PATHS], EmrServerlessResponse.dispatch))
