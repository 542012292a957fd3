"""Spark jobs of Orchard. Knows nothing of Airflow. `contract`, `storage`, `pca`, `audit` and what they need serve both sides."""

__version__ = "0.1.0"
