"""Start Spark's Python workers with PySpark's own daemon, but faster. The option `spark.python.daemon.module` names this."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

from orchard_jobs.entry import take_installed_pyspark


class WithoutPandas(MetaPathFinder):
    """Says that pandas is not installed.

    Arrow imports it at the first array, only to tell a series from a list: half a CPU-second a worker. No task has a series.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raise ModuleNotFoundError for pandas; leave all else to the other finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError("no task of Orchard uses pandas", name=fullname)


if __name__ == "__main__":
    take_installed_pyspark()
    sys.meta_path.insert(0, WithoutPandas())
    from pyspark.daemon import manager

    manager()
