"""The stages: Spark DataFrames in, staged Parquet and a report out. They do not import each other."""
