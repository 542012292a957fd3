"""Airflow side of Orchard. Knows the jobs by their contract only: no Spark, no network, no image."""

__version__ = "0.1.0"
