"""A jobs' environment whose spark-submit starts no JVM for a script that does not need one.

A script that names pyspark is run by the real spark-submit. Any other is started by the driver's Python at once, with the
same arguments, streams and exit status, so that a test of a job's life waits for no Spark.
"""

from pathlib import Path

_PYTHON = """#!/bin/sh
exec '{environment}/bin/python' "$@"
"""
# Each option has one value. Spark puts all that a Python driver writes on stdout.
_SPARK_SUBMIT = """#!/bin/sh
for script in "$@"; do case "$script" in *.py) break ;; esac; done
if grep -q pyspark "$script"; then exec '{environment}/bin/spark-submit' "$@"; fi
while [ "${{1#--}}" != "$1" ]; do shift 2; done
exec "$PYSPARK_DRIVER_PYTHON" "$@" 2>&1
"""


def quick_python(folder: Path, environment: Path) -> Path:
    """Make such an environment over a real one, and return its Python."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name, text in (("python", _PYTHON), ("spark-submit", _SPARK_SUBMIT)):
        path = folder / "bin" / name
        path.write_text(text.format(environment=environment))
        path.chmod(0o755)
    return folder / "bin" / "python"
