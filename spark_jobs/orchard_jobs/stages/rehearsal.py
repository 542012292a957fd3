"""rehearse: the stages' one Spark operation, so that a JVM can archive the classes that it loads.

A start of Spark is most of a small job, and loading classes is most of the start. `-XX:ArchiveClassesAtExit` around this and
`-XX:SharedArchiveFile` around a job is how Java shares them (JEP 350).
"""

from pyspark.sql import SparkSession

from orchard_jobs.stages.tasks import Workers


def rehearse(spark: SparkSession) -> int:
    """Hand out some numbers, twice; return how many came back."""
    workers = Workers(spark)
    return len(workers.run(4, str)) + len(workers.run(8, str, at_most=2))
