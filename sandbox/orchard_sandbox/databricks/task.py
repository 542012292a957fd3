"""What a Databricks run does on its machine: gives the task a Spark session, and calls the wheel's entry point.

Run by the Python of the run's own environment, which holds no more than Databricks puts there: the platform's packages, the wheel
and its dependencies. The first argument is a file with the task as JSON. Its fields are `package`, `entry_point`, `parameters`,
`app_name` and `credentials`. `app_name` is null if the task gets no session; `credentials` maps the names of Unity Catalog's
service credentials to key and secret.
"""

import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from pyspark.sql import SparkSession


def main() -> int:
    """Call the entry point; its value is ignored, and what it raises ends the run."""
    task = json.loads(Path(sys.argv[1]).read_text())
    # With SPARK_REMOTE it is a session of Spark Connect, as on serverless compute; else the cluster's own.
    spark = SparkSession.builder.appName(task["app_name"]).getOrCreate() if task["app_name"] else None
    _give_dbutils(task["credentials"])
    sys.argv = [task["entry_point"], *task["parameters"]]
    entry = _entry_point(task["package"], task["entry_point"])
    entry()
    # The platform's session outlives the task; here it ends with the process, and its JVM, at once.
    sys.stdout.flush()
    sys.stderr.flush()
    if spark is not None and "SPARK_REMOTE" not in os.environ:
        spark.stop()
    return 0


def _give_dbutils(credentials: Mapping[str, tuple[str, str]]) -> None:
    """Provide `databricks.sdk.runtime.dbutils`, limited to service credentials."""

    def get_provider(name: str) -> Any:
        if name not in credentials:
            raise ValueError(
                f"UC_CREDENTIAL_NOT_FOUND: Service credential '{name}' does not exist or you do not have ACCESS on it."
            )
        import botocore.session

        session = botocore.session.Session()
        session.set_credentials(*credentials[name])
        return session

    runtime = ModuleType("databricks.sdk.runtime")
    vars(runtime)["dbutils"] = SimpleNamespace(credentials=SimpleNamespace(getServiceCredentialsProvider=get_provider))
    for name in ("databricks", "databricks.sdk"):
        sys.modules[name] = ModuleType(name)
    sys.modules[runtime.__name__] = runtime


def _entry_point(package: str, name: str) -> Callable[[], Any]:
    """Return the wheel's entry point of the name, else the function `name` of the package, as Databricks looks for it."""
    for found in importlib.metadata.distribution(package).entry_points:
        if found.name == name:
            loaded: Callable[[], Any] = found.load()
            return loaded
    module = importlib.import_module(package)
    if not hasattr(module, name):
        raise AttributeError(f"Python wheel with name {package} has no entry point {name}")
    function: Callable[[], Any] = getattr(module, name)
    return function


if __name__ == "__main__":
    sys.exit(main())
