"""Which variables of its parent's environment a local job gets: what it needs, and with it no secret of Airflow."""

from collections.abc import Mapping

_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        # The process that the job ends with, the stack that it belongs to, and Unity Catalog's service credential.
        *("ORCHARD_OWNER_PID", "ORCHARD_STACK_ID", "ORCHARD_SERVICE_CREDENTIAL"),
    }
)
_PREFIXES = (
    *("LC_", "XDG_", "PYTHON", "JAVA_", "JDK_", "SPARK_", "PYSPARK_", "HADOOP_", "YARN_", "KRB5", "KUBERNETES_", "AWS_"),
    *("CUDA_", "NVIDIA_", "OMP_", "OPENBLAS_", "MKL_", "MALLOC_", "TF_", "KERAS_"),
)


def of_job(parent: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process's environment that a job started by it gets; others, `AIRFLOW__*` among them, stay."""
    return {name: value for name, value in parent.items() if name.upper() in _NAMES or name.startswith(_PREFIXES)}
