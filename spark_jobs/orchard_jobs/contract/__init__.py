"""What the Airflow side and the Spark side agree on, as frozen dataclasses and plain functions.

Standard library only: no Spark, no Airflow, no numpy, no storage client.
"""
