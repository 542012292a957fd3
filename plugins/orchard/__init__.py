"""Airflow side of Orchard. Imports no stage and no engine of the jobs: no Spark, no network, no image."""

__version__ = "0.1.0"
