"""Airflow reads its environment at the first import, so what the tests need of it is set here, before any."""

import json
import os
import shutil
import tempfile

from support.repository import ROOT

for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "ORCHARD_"))]:
    if name != "ORCHARD_SHARED_DATA":
        del os.environ[name]
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="orchard-airflow-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(
    [{"name": "dags", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": str(ROOT / "dags")}}]
)
os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = "a secret of the tests alone, as long as Airflow's log-in wants it to be"
os.environ["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] = "False"


def pytest_unconfigure() -> None:
    """Remove Airflow's folder."""
    shutil.rmtree(os.environ["AIRFLOW_HOME"], ignore_errors=True)
