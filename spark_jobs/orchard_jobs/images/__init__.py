"""From a manifest's entries to feature vectors: fetch, decode, de-duplicate, run the network. No Spark, no Airflow."""
