"""Start Spark's Python workers with PySpark's own daemon, but faster. The option `spark.python.daemon.module` names this."""

from orchard_jobs.entry import take_installed_pyspark

if __name__ == "__main__":
    take_installed_pyspark()
    from pyspark.daemon import manager

    manager()
