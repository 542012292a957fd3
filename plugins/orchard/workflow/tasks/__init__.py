"""The DAGs' tasks, one module for each DAG family: get the context, call one use case, map its outcome."""
