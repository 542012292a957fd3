"""The stages' one Spark operation on made-up rows, so that a JVM loads their classes and can archive them.

A start of Spark is most of a small job, and loading classes is most of the start. `-XX:ArchiveClassesAtExit` around this and
`-XX:SharedArchiveFile` around a job is how Java shares them (JEP 350).
"""

from pyspark.sql import SparkSession

from orchard_jobs.stages.workers import Workers


def warm_up(spark: SparkSession) -> int:
    """Hand out some numbers, twice; return how many came back."""
    workers = Workers(spark)
    return len(workers.run(4, str)) + len(workers.run(8, str, at_most=2))
