"""From a manifest's entries to feature vectors: fetch, decode, de-duplicate, run the backbone. No Spark, no Airflow."""
