"""What Spark starts in Python: the driver of a job and, on this machine, the daemon of its workers."""

import os
import sys
from importlib.machinery import PathFinder


def take_installed_pyspark() -> None:
    """Import PySpark from where it is installed, not from the zip inside it that spark-submit puts first on the path.

    Both hold the same sources, but Python compiles those of a zip again at each start: half a second of a driver, and again of a
    daemon. Where only a zip holds PySpark or py4j, or a zip of another PySpark comes first, as on a cluster, nothing changes.

    Keep the name. The script of one release may run with the package of another. A launcher submits the script that is installed
    beside Airflow, but Spark's Python imports the package from the jobs' environment.
    """
    rest = [place for place in sys.path if not place.endswith(".zip")]
    pyspark, py4j = (PathFinder.find_spec(name, rest) for name in ("pyspark", "py4j"))
    if pyspark is None or pyspark.origin is None or py4j is None or py4j.origin is None:
        return
    own = os.path.realpath(os.path.join(os.path.dirname(pyspark.origin), "python", "lib"))
    sys.path[:] = [
        place for place in sys.path if not (place.endswith(".zip") and os.path.realpath(os.path.dirname(place)) == own)
    ]
