"""The AWS stand-in: S3 and its queue on loopback, a process of its own; with `--spark-submit` it is EMR Serverless and EMR, too.

Any credentials are accepted. It knows nothing of batches or images. A process of its own because delta-rs and moto in one
process deadlock: delta-rs holds the GIL while it waits.
"""

import argparse
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends

from orchard_sandbox.emr import serverless_api
from orchard_sandbox.emr.api import operation_of, refusal
from orchard_sandbox.emr.clusters import Clusters
from orchard_sandbox.emr.serverless import EmrServerless
from orchard_sandbox.job_execution.control import Application, Control
from orchard_sandbox.job_execution.faults import Faults
from orchard_sandbox.job_execution.job import Machine
from orchard_sandbox.job_execution.life_cycle import Pace
from orchard_sandbox.job_execution.serving import add_options, listen, serve
from orchard_sandbox.s3.landing import ACCOUNT
from orchard_sandbox.s3.objects import ObjectFolder
from orchard_sandbox.s3.persistence import Persistence, make_queue, take_every_key


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser)
    parser.add_argument("--spark-submit", type=Path, help="runs the jobs of EMR Serverless and EMR, which are off without it")
    parser.add_argument("--python", type=Path, help="runs the jobs' drivers and workers: it stands for that of their image")
    parser.add_argument("--work", type=Path, help="keeps applications, clusters, their jobs and the logs")
    given = parser.parse_args()
    if given.spark_submit and not (given.python and given.work):
        parser.error("--spark-submit needs --python and --work")
    persistence = _load(given.folder)
    listener = listen(given.port)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if given.spark_submit:
        machine = Machine(given.spark_submit.absolute(), given.python.absolute(), address)
        pace = Pace(given.state_seconds, given.minute_seconds)
        application = _with_jobs(persistence, given.work.absolute(), machine, pace)
    else:
        application = persistence.wrap(DomainDispatcherApplication(create_backend_app))
    serve(listener, application, address, given.address_file, MotoRequestHandler)


def _load(folder: Path) -> Persistence:
    backend = s3_backends[ACCOUNT]["aws"]
    persistence = Persistence(backend, ObjectFolder(folder))
    persistence.load()
    persistence.watch()
    take_every_key()
    make_queue(backend)  # after the load, which is no upload
    return persistence


def _with_jobs(persistence: Persistence, folder: Path, machine: Machine, pace: Pace) -> Application:
    """Return the application that runs the jobs of EMR Serverless and EMR, too."""
    faults = Faults()
    serverless = EmrServerless(folder, machine, pace, faults)
    clusters = Clusters(folder / "clusters", machine, pace, faults)
    serverless_api.install(serverless)

    def create(service: Any) -> Any:
        """Return the application of a service, as moto makes it at the service's first request."""
        if service == "emr":
            # With moto's model of EC2, whose import is half of the stand-in's start.
            from orchard_sandbox.emr import clusters_api

            clusters_api.install(clusters)
        return create_backend_app(service)

    control = Control(faults, lambda name: serverless.find(name) or clusters.find(name), operation_of, refusal)
    return control.wrap(persistence.wrap(DomainDispatcherApplication(create)))


if __name__ == "__main__":
    main()
