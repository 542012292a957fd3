"""EMR Serverless's API: moto's routes with the stand-in's service behind them.

moto parses requests and serializes answers by botocore's model. Its own backend, whose jobs are SUCCESS at once, is not used.
"""

from moto.core.responses import ActionResult, EmptyResult, PaginatedResult
from moto.emrserverless import urls

from orchard_sandbox.emr.api import CheckedResponse
from orchard_sandbox.emr.serverless import EmrServerless
from orchard_sandbox.emr.serverless_runs import TERMINAL, JobRun
from orchard_sandbox.emr.submissions import RequestError
from orchard_sandbox.job_execution.life_cycle import CANCEL_SECONDS
from orchard_sandbox.job_execution.run_pages import RUN_QUERY

# Of the operations that moto lacks.
_ADDED_PATH = "{0}/applications/(?P<applicationId>[^/]+)/(?P<rest>.+)$"


class EmrServerlessResponse(CheckedResponse):
    """moto's handler of the API's requests, in front of an EmrServerless."""

    model_name = "emr-serverless"
    service: EmrServerless

    def create_application(self) -> ActionResult:
        shown = self.service.create_application(self.given).shown
        return ActionResult({key: shown.get(key) for key in ("applicationId", "name", "arn")})

    def get_application(self) -> ActionResult:
        return ActionResult({"application": self.service.application(self.given["applicationId"]).show()})

    def list_applications(self) -> ActionResult:
        applications = list(self.service.applications.values())
        return PaginatedResult({"applications": [{**one.show(), "id": one.id} for one in applications]})

    def start_application(self) -> ActionResult:
        self.service.application(self.given["applicationId"]).change("STARTED")
        return EmptyResult()

    def start_job_run(self) -> ActionResult:
        shown = self.service.start_job_run(self.given).show()
        return ActionResult({key: shown[key] for key in ("applicationId", "jobRunId", "arn")})

    def _run(self) -> JobRun:
        return self.service.run(self.given["applicationId"], self.given["jobRunId"])

    def get_job_run(self) -> ActionResult:
        return ActionResult({"jobRun": self._run().show()})

    def cancel_job_run(self) -> ActionResult:
        run = self._run()
        if run.is_over:
            raise RequestError(f"Job run {run.id} has ended: its state is one of [{', '.join(TERMINAL)}]")
        run.cancel(self.given.get("shutdownGracePeriodInSeconds", CANCEL_SECONDS))
        return ActionResult({key: run.shown[key] for key in ("applicationId", "jobRunId")})

    def list_job_runs(self) -> ActionResult:
        application = self.service.application(self.given["applicationId"]).id
        found = [run.show() for run in list(self.service.runs.values()) if run.shown["applicationId"] == application]
        newest_first = sorted(found, key=lambda shown: shown["createdAt"], reverse=True)
        return PaginatedResult({"jobRuns": [{**shown, "id": shown["jobRunId"]} for shown in newest_first]})

    def get_dashboard_for_job_run(self) -> ActionResult:
        return ActionResult({"url": f"{self.service.machine.s3['AWS_ENDPOINT_URL']}/?{RUN_QUERY}={self._run().id}"})


def install(service: EmrServerless) -> None:
    """Put the service behind moto's routes of EMR Serverless."""
    EmrServerlessResponse.service = service
    urls.url_paths.update(dict.fromkeys([*urls.url_paths, _ADDED_PATH], EmrServerlessResponse.dispatch))
