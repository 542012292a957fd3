"""What Spark starts in Python: the driver of a job and, on this machine, the daemon of its workers."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path


def take_installed_pyspark() -> None:
    """Import PySpark from where it is installed, not from the zip inside it that spark-submit puts first on the path.

    Both hold the same sources, but Python compiles those of a zip anew at each start: half a second of a driver, and again of a
    daemon. Where only a zip holds PySpark, or a zip of another PySpark comes first, as on a cluster, nothing changes.
    """
    found = PathFinder.find_spec("pyspark", [place for place in sys.path if not place.endswith(".zip")])
    for home in found.submodule_search_locations or () if found is not None else ():
        zips = Path(home, "python", "lib").resolve()
        sys.path[:] = [place for place in sys.path if Path(place).resolve().parent != zips]
