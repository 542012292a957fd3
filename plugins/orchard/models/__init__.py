"""The life of a backbone's models: moments, refit, publication, promotion, retention. Knows no Airflow and no Spark."""
