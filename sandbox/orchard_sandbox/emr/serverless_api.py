"""EMR Serverless's API: moto's routes with the stand-in's service behind them.

moto parses requests and serializes answers by botocore's model. Its own backend, whose jobs are SUCCESS at once, is not used.
"""

from moto.core.responses import ActionResult, EmptyResult, PaginatedResult
from moto.emrserverless import urls

from orchard_sandbox.emr.api import CheckedResponse, check_moto
from orchard_sandbox.emr.serverless import EmrServerless
from orchard_sandbox.emr.serverless_runs import TERMINAL, JobRun
from orchard_sandbox.emr.submissions import RequestError
from orchard_sandbox.job_execution.life_cycle import CANCEL_SECONDS

_APPLICATION = "{0}/applications/(?P<applicationId>[^/]+)"
PATHS = {
    "{0}/applications$",
    f"{_APPLICATION}$",
    f"{_APPLICATION}/start$",
    f"{_APPLICATION}/stop$",
    f"{_APPLICATION}/jobruns$",
    f"{_APPLICATION}/jobruns/(?P<jobRunId>[^/]+)$",
}
_ADDED_PATHS = {f"{_APPLICATION}/(?P<rest>.+)$", "{0}/tags/(?P<resourceArn>.+)$"}


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
        states = self.given.get("states")
        found = [self.service.application(name) for name in list(self.service.applications)]
        shown = [{**one.show(), "id": one.id} for one in found if not states or one.state in states]
        return PaginatedResult({"applications": shown})

    def start_application(self) -> ActionResult:
        with self.service.lock:
            application = self.service.application(self.given["applicationId"])
            application.require("CREATED", "STOPPED", "STARTING", "STARTED")
            if application.state in ("CREATED", "STOPPED"):
                application.move("STARTING")
        return EmptyResult()

    def stop_application(self) -> ActionResult:
        with self.service.lock:
            application = self.service.application(self.given["applicationId"])
            if any(not run.is_over for run in self.service.runs_of(application.id)):
                raise RequestError(f"Application {application.id} cannot be stopped: it has job runs that have not ended")
            application.require("CREATED", "STOPPED", "STOPPING", "STARTED")
            if application.state == "STARTED":
                application.move("STOPPING")
        return EmptyResult()

    def delete_application(self) -> ActionResult:
        with self.service.lock:
            application = self.service.application(self.given["applicationId"])
            application.require("CREATED", "STOPPED")
            application.move("TERMINATED")
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
        given = self.given
        after, before = (given[name].timestamp() if name in given else None for name in ("createdAtAfter", "createdAtBefore"))
        found = [run.show() for run in self.service.runs_of(self.service.application(given["applicationId"]).id)]
        left = [
            {**shown, "id": shown["jobRunId"]}
            for shown in sorted(found, key=lambda shown: shown["createdAt"], reverse=True)
            if shown["state"] in given.get("states", [shown["state"]])
            and given.get("mode", "BATCH") == "BATCH"
            and (after is None or shown["createdAt"].timestamp() > after)
            and (before is None or shown["createdAt"].timestamp() < before)
        ]
        return PaginatedResult({"jobRuns": left})

    def list_job_run_attempts(self) -> ActionResult:
        run = self._run()
        with run.lock:
            return PaginatedResult({"jobRunAttempts": [dict(attempt) for attempt in run.attempts]})

    def get_dashboard_for_job_run(self) -> ActionResult:
        return ActionResult({"url": self.service.dashboard(self._run())})

    def list_tags_for_resource(self) -> ActionResult:
        return ActionResult({"tags": self.service.owner(self.given["resourceArn"]).shown.get("tags", {})})

    def tag_resource(self) -> ActionResult:
        return self._change_tags(self.given["tags"], [])

    def untag_resource(self) -> ActionResult:
        return self._change_tags({}, self.given["tagKeys"])

    def _change_tags(self, added: dict[str, str], removed: list[str]) -> ActionResult:
        owner = self.service.owner(self.given["resourceArn"])
        with owner.lock:
            tags = {**owner.shown.get("tags", {}), **added}
            owner.shown["tags"] = {key: value for key, value in tags.items() if key not in removed}
            owner.save()
        return EmptyResult()


def install(service: EmrServerless) -> None:
    """Put the service behind moto's routes of EMR Serverless; SandboxError for another moto."""
    check_moto(urls.url_paths, PATHS, "moto.emrserverless.urls")
    EmrServerlessResponse.service = service
    urls.url_paths.update(dict.fromkeys([*PATHS, *_ADDED_PATHS], EmrServerlessResponse.dispatch))
