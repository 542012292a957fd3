"""`orchard-spark-submit`: Spark's own spark-submit, in an environment without the secrets of the process that starts it.

Airflow's SparkSubmitOperator hands its whole environment on, and the JVM and its Python workers would inherit it.
"""

import os
import sys
from pathlib import Path

from orchard_jobs.contract.environment import of_job


def main() -> None:
    """Become the spark-submit beside this Python, with the same arguments."""
    spark_submit = str(Path(sys.executable).with_name("spark-submit"))
    os.execve(spark_submit, [spark_submit, *sys.argv[1:]], of_job(os.environ))
