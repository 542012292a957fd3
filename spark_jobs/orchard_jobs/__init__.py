"""Spark jobs of Orchard. Knows nothing of Airflow; `contract` alone is shared by both sides."""

__version__ = "0.1.0"
