"""The audit of staged rows: another reader than wrote them, streaming, that fails closed. No Spark, no Airflow, no Delta."""
