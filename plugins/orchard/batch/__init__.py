"""A run of one batch: compare, plan, validate, publish. Knows no Airflow and no Spark."""
