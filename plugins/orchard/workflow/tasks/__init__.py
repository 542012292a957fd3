"""The DAGs' tasks, one module a DAG family: get the context, call one use case, map its outcome."""
