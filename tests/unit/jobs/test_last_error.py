"""What a job says of its own failure in one line, from the forms in which Spark tells of an error."""

import pytest
from orchard_jobs.cli import _last_error
from orchard_jobs.errors import JobError

WORKER = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "worker.py", line 1, in main
    process()
    ^^^^^^^^^
ValueError: outer

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "worker.py", line 2, in main
{error}

JVM stacktrace:
org.apache.spark.api.python.PythonException
\tat org.apache.spark.Foo(Foo.scala:1)
"""
CONNECT = """
  An exception was thrown from the Python worker. Please see the stack trace below.
[PYTHON_EXCEPTION] An exception was thrown from the Python worker: Traceback (most recent call last):
  File "worker.py", line 2, in main
JobError: no such
  fruit
 SQLSTATE: 38000"""
JAVA = """An error occurred while calling o75.collectToPython.
: org.apache.spark.SparkException: Job aborted due to stage failure: ExecutorLostFailure (executor 1 exited)
\tat org.apache.spark.Foo(Foo.scala:1)
Caused by: java.lang.OutOfMemoryError: Java heap space
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WORKER.format(error="pyarrow.lib.ArrowInvalid: no Parquet"), "pyarrow.lib.ArrowInvalid: no Parquet"),
        (WORKER.format(error="MemoryError"), "MemoryError"),
        (
            WORKER.format(error="orchard_jobs.errors.JobError: gone\nrun it again"),
            "orchard_jobs.errors.JobError: gone run it again",
        ),
        (CONNECT, "JobError: no such fruit"),
        (JAVA, "org.apache.spark.SparkException: Job aborted due to stage failure: ExecutorLostFailure (executor 1 exited)"),
        ("3 files\nare \x1b[31mgone", r"JobError: 3 files are \x1b[31mgone"),
        ("x" * 5000, "JobError: " + "x" * 990),
    ],
)
def test_the_line_is_the_workers_own_error_or_the_jobs(text: str, told: str) -> None:
    assert _last_error(JobError(text)) == told
