"""Pages of runs, which Airflow's links lead to: `?orchard-run=<id>` is a page with a run's log, at any path.

At any path because those links put their own path into such a URL.
"""

from collections.abc import Callable, Iterable
from html import escape
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.wrappers import Request, Response

from orchard_sandbox.job_execution.life_cycle import Run

RUN_QUERY = "orchard-run"


def with_run_pages(application: WSGIApplication, find: Callable[[str], Run | None]) -> WSGIApplication:
    """Return the WSGI application with the pages of the runs that `find` returns by their ids."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if RUN_QUERY not in environ.get("QUERY_STRING", ""):
            return application(environ, start_response)
        request = Request(environ)
        run = find(request.args.get(RUN_QUERY, ""))
        page = _page(run, request.path) if run else Response("no such run", 404)
        return page(environ, start_response)

    return answer


def _page(run: Run, path: str) -> Response:
    streams = [name for name in ("stdout", "stderr") if path == f"/logs/SPARK_DRIVER/{name}.gz"] or ["stderr", "stdout"]
    outcome, details = run.headline()
    head = f"<h1>{run.id}: {outcome}</h1><p>{escape(details)}</p>"
    logs = "".join(f"<h2>{name}</h2><pre>{escape(run.log_text(name))}</pre>" for name in streams)
    return Response(head + logs, mimetype="text/html")
