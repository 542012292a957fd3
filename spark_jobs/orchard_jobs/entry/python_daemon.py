"""The daemon that starts Spark's Python workers: PySpark's own, sooner. `spark.python.daemon.module` names it."""

from orchard_jobs.entry import prefer_installed_pyspark

if __name__ == "__main__":
    prefer_installed_pyspark()
    from pyspark.daemon import manager

    manager()
