"""A run of image_batches whose job is run by a Spark of this machine, without Airflow."""

import subprocess
from collections.abc import Callable

from orchard.batch import run as batch_run
from orchard.landing_zone.listing import LandingZone
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.layout import backbone_path

from support.faked_flow import lock_of, value_of
from support.repository import ROOT
from support.submitted_job import featurize_command, own_environment

JOBS = ROOT / ".venv" / "jobs"


def exported(backbone: Backbone) -> bytes:
    """Return a backbone as `make setup` exported it into the jobs' environment."""
    return (JOBS / "share" / "orchard" / "networks" / f"{backbone.id}.onnx").read_bytes()


def copy_backbone(tables: Tables, settings: Settings) -> None:
    """Put the exported backbone into a warehouse."""
    tables.warehouse.create(backbone_path(settings.backbone.id), exported(settings.backbone))


def publish_batch(
    tables: Tables,
    settings: Settings,
    batch_id: str,
    landing_zone: LandingZone,
    aws: dict[str, str],
    within: Callable[[list[str]], list[str]] = list,
) -> None:
    """Plan, compute, audit and publish one batch.

    Args:
        tables: the tables; its warehouse has the backbone.
        settings: the settings.
        batch_id: the batch.
        landing_zone: where it landed.
        aws: the variables by which the job reaches it.
        within: makes of the job's command one that runs it elsewhere.
    """
    jobs = value_of(batch_run.plan(tables, settings, lock_of(batch_id), landing_zone, lambda backbone: None))
    command = within(featurize_command(tables.warehouse, jobs.input_digest, JOBS))
    done = subprocess.run(command, env=own_environment(JOBS) | aws, capture_output=True, text=True, check=False)
    # Spark turns what its Python tells into stdout.
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    verdict = value_of(batch_run.validate(tables, settings, jobs))
    value_of(batch_run.publish(tables, settings, jobs, verdict, f"run of {batch_id}"))
