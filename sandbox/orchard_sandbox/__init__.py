"""The embedded default: an S3 stand-in, an Airflow supervisor and sample images; production code does not know of it."""
