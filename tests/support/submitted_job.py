"""A featurize job with a Spark of its own, submitted as the local launcher submits it."""

import os
import sys
from pathlib import Path

from orchard_jobs.contract.environment import of_job
from orchard_jobs.local_spark import submit_command
from orchard_jobs.storage import Warehouse

from support.repository import ROOT


def featurize_command(warehouse: Warehouse, input_digest: str, environment: Path = Path(sys.prefix)) -> list[str]:
    """Return the command line, with the Spark of an environment."""
    script = str(ROOT / "spark_jobs" / "orchard_jobs" / "entry" / "run_job.py")
    stage = ["featurize", "--warehouse", warehouse.uri, "--input-digest", input_digest]
    return [*submit_command(environment), script, *stage]


def own_environment(environment: Path = Path(sys.prefix)) -> dict[str, str]:
    """Return the job's variables, without those that a Spark in this process has set for itself."""
    kept = {name: value for name, value in of_job(os.environ).items() if not name.startswith(("SPARK_", "PYSPARK_"))}
    python = str(environment / "bin" / "python")
    return kept | {"PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": python}
