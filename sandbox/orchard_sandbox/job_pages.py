"""The pages of job runs that the API's dashboard URL leads to: a run, and the driver's streams below /logs/SPARK_DRIVER/.

Airflow's links put their own path into that URL, so the query alone tells a page from a request to S3.
"""

from collections.abc import Callable, Iterable
from html import escape
from typing import Any
from urllib.parse import parse_qs

from orchard_sandbox.faults import Application
from orchard_sandbox.job_runs import JobRun

JOB_QUERY = "orchard-job-run"


def add_pages(application: Application, find_run: Callable[[str], JobRun | None]) -> Application:
    """Return the WSGI application with the pages."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked = parse_qs(environ.get("QUERY_STRING", "")).get(JOB_QUERY)
        if not asked:
            return application(environ, start_response)
        run = find_run(asked[0])
        start_response("200 OK" if run else "404 Not Found", [("Content-Type", "text/html; charset=utf-8")])
        return [_page(run, environ["PATH_INFO"]).encode() if run else b"no such job run"]

    return answer


def _page(run: JobRun, path: str) -> str:
    shown = run.shown
    streams = [name for name in ("stdout", "stderr") if path == f"/logs/SPARK_DRIVER/{name}.gz"] or ["stderr", "stdout"]
    head = f"<h1>Job run {shown['jobRunId']}: {shown['state']}</h1><p>{escape(shown['stateDetails'])}</p>"
    return head + "".join(f"<h2>{name}</h2><pre>{escape(run.log_text(name))}</pre>" for name in streams)
