"""The AWS stand-in: S3 and its queue on loopback, a process of its own; with `--python` it is EMR Serverless and EMR, too.

Each call must be signed with the key of its own environment, whose secret is AWS_SECRET_ACCESS_KEY. Whatever else moto can
do, its own API included, is refused. It knows nothing of batches or images. A process of its own because delta-rs and moto
in one process deadlock: delta-rs holds the GIL while it waits.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends

from orchard_sandbox.emr import serverless_api
from orchard_sandbox.emr.clusters import Clusters
from orchard_sandbox.emr.serverless import EmrServerless
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.life_cycle import Run
from orchard_sandbox.job_execution.run_pages import with_run_pages
from orchard_sandbox.job_execution.serving import add_options, listen, serve
from orchard_sandbox.s3.landing import ACCOUNT, KEY, s3_environment
from orchard_sandbox.s3.objects import ObjectFolder
from orchard_sandbox.s3.persistence import Persistence, make_queue, take_every_key
from orchard_sandbox.s3.signed_requests import SignatureCheck, refusal

# By moto's names, with what is to be done before the first request.
Services = dict[str, Callable[[], None] | None]


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser)
    parser.add_argument("--python", type=Path, help="runs the jobs of EMR Serverless and EMR, which are off without it")
    parser.add_argument("--work", type=Path, help="keeps applications, clusters, their jobs and the logs")
    given = parser.parse_args()
    if given.python and not given.work:
        parser.error("--python needs --work")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not secret:
        parser.error("set AWS_SECRET_ACCESS_KEY to the secret that calls are signed with")
    persistence = _load(given.folder)
    listener = listen(given.port)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    jobs, find = _jobs(given, s3_environment(address, secret)) if given.python else ({}, lambda name: None)
    checked = SignatureCheck(KEY, secret).wrap(persistence.wrap(_moto({"s3": None, "sqs": None, **jobs})))
    serve(listener, with_run_pages(checked, find), address, given.address_file, MotoRequestHandler)


def _load(folder: Path) -> Persistence:
    backend = s3_backends[ACCOUNT]["aws"]
    persistence = Persistence(backend, ObjectFolder(folder))
    persistence.load()
    persistence.watch()
    take_every_key()
    make_queue(backend)  # after the load, which is no upload
    return persistence


def _moto(services: Services) -> WSGIApplication:
    """Return moto with these services alone; each is prepared at its first request."""

    def create(name: Any) -> Any:
        if name not in services:
            return refusal("AccessDenied", f"{name} is not served here, only {', '.join(services)}", name)
        if prepare := services[name]:
            prepare()
        return create_backend_app(name)

    application: WSGIApplication = DomainDispatcherApplication(create)
    return application


def _jobs(given: argparse.Namespace, s3: Mapping[str, str]) -> tuple[Services, Callable[[str], Run | None]]:
    """Return EMR Serverless and EMR, and what finds their runs."""
    machine, work = Machine.beside(given.python, s3), given.work.absolute()
    serverless, clusters = EmrServerless(work, machine), Clusters(work / "clusters", machine)

    def prepare_emr() -> None:
        # With moto's model of EC2, whose import is half of the stand-in's start.
        from orchard_sandbox.emr import clusters_api

        clusters_api.install(clusters)

    services: Services = {"emrserverless": lambda: serverless_api.install(serverless), "emr": prepare_emr}
    return services, lambda name: serverless.runs.get(name) or clusters.find_step(name)


if __name__ == "__main__":
    main()
