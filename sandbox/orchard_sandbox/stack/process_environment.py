"""The environment of Airflow's processes and, through them, of the Spark jobs: values in, values out."""

import hashlib
import json
import os
from collections.abc import Mapping

from orchard_jobs.contract.locations import S3Location, warehouse_uri
from orchard_jobs.local_spark import class_archive_of

from orchard_sandbox.job_execution.processes import MARKER
from orchard_sandbox.s3.landing import BUCKET, PREFIX, queue_url, s3_environment
from orchard_sandbox.stack.stack_paths import ROOT, Layout
from orchard_sandbox.stack.stack_state import StackState

# Settings of other Airflows, Sparks, clouds and Pythons on this machine must not leak in.
_FOREIGN = (
    *("AIRFLOW", "AWS_", "PYSPARK_", "SPARK_", "HADOOP_", "OPENLINEAGE_", "PYTHON", "VIRTUAL_ENV", "MOTO_"),
    *("MAKE", "MFLAGS"),
)
_OF_PAGES = (".css", ".html", ".js")
_READ_BY_PAGES = ("ORCHARD_WAREHOUSE", "ORCHARD_LANDING", "ORCHARD_PIXEL_LIMIT", "ORCHARD_OBJECT_LIMIT")
_MAKE_VARIABLES = {"ENGINE": "ORCHARD_ENGINE", "BACKBONE": "ORCHARD_BACKBONE", "TARGET": "ORCHARD_TARGET"}


def warehouse(layout: Layout, variables: Mapping[str, str]) -> str:
    """Return the warehouse's URI: WAREHOUSE, ORCHARD_WAREHOUSE, or `.orchard/warehouse`; made absolute."""
    text = variables.get("WAREHOUSE") or variables.get("ORCHARD_WAREHOUSE") or str(layout.home / "warehouse")
    return warehouse_uri(text if ":" in text else os.path.abspath(text))


def airflow_environment(layout: Layout, state: StackState, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of every process of the stack; the user's ORCHARD_* settings win over the defaults here."""
    kept = {name: value for name, value in variables.items() if not name.startswith(_FOREIGN)}
    path = [str(layout.environments / name / "bin") for name in ("airflow", "jobs")] + [kept.get("PATH", os.defpath)]
    # A proxy knows nothing of this machine's loopback.
    direct = ",".join(filter(None, [kept.get("NO_PROXY") or kept.get("no_proxy"), "127.0.0.1", "localhost"]))
    return {
        **kept,
        "ORCHARD_UPLOADS_QUEUE": queue_url(state.s3_address),
        **settings_environment(layout, variables),
        **s3_environment(state.s3_address, layout.secret("s3")),
        **_airflow(layout, state),
        "PATH": os.pathsep.join(path),
        "NO_PROXY": direct,
        "no_proxy": direct,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
        # setproctitle would overwrite the environment that the system shows, and with it the marker.
        "SPT_NOENV": "1",
        MARKER: layout.marker,
    }


def settings_environment(layout: Layout, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the ORCHARD_* variables of the stack's processes: the stack's own, the user's over them, and make's over those."""
    own = {name: value for name, value in variables.items() if name.startswith("ORCHARD_")}
    made = {target: variables[name] for name, target in _MAKE_VARIABLES.items() if variables.get(name)}
    return {
        "ORCHARD_LANDING": S3Location(BUCKET, PREFIX).uri,
        "ORCHARD_QUIET_SECONDS": "5",
        "ORCHARD_POLL_SECONDS": "2",
        "ORCHARD_JOBS_PYTHON": str(layout.environments / "jobs" / "bin" / "python"),
        "ORCHARD_CLASS_ARCHIVE": str(class_archive_of(layout.environments / "jobs")),
        "ORCHARD_TARGET": "local",
        **dict.fromkeys(("ORCHARD_SCHEDULE", "ORCHARD_RECONCILE_SCHEDULE", "ORCHARD_CLEAN_SCHEDULE"), "none"),
        **own,
        **made,
        "ORCHARD_WAREHOUSE": warehouse(layout, variables),
    }


def _airflow(layout: Layout, state: StackState) -> dict[str, str]:
    lineage = {"type": "file", "log_file_path": str(layout.home / "lineage" / "events.jsonl"), "append": True}
    settings = {
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__DAGS_FOLDER": str(layout.dags),
        "CORE__EXECUTION_API_SERVER_URL": f"{state.api_address}/execution/",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__MP_FORKSERVER_PRELOAD": "orchard.preload",
        "CORE__PARALLELISM": "2",
        "CORE__PLUGINS_FOLDER": str(layout.airflow_plugins),
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(layout.password_file),
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        # SQLite's own 5 s run out on a busy machine: five processes share one writer. See `airflow_plugins` for the api-server.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{layout.airflow / 'airflow.db'}?timeout=120",
        "API__BASE_URL": state.api_address,
        "API__SECRET_KEY": layout.secret("api"),
        "API_AUTH__JWT_SECRET": layout.secret("jwt"),
        # A file that was changed is read at once all the same.
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        "LOGGING__BASE_LOG_FOLDER": str(layout.airflow / "logs"),
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        # The trigger at the queue logs each look, several lines a second, which would fill the disk.
        "LOGGING__NAMESPACE_LEVELS": "airflow.providers.amazon.aws.triggers=WARNING aiobotocore=WARNING botocore=WARNING",
        "OPENLINEAGE__TRANSPORT": json.dumps(lineage),
        "SCHEDULER__MP_START_METHOD": "forkserver",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        # The first request to a cold Execution API took up to 40 s; the default time-out is 5 s.
        "WORKERS__EXECUTION_API_TIMEOUT": "120",
        # The end of a task is noticed at once or at the next heartbeat, up to which it holds its place among the running ones.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }
    connections = {"aws_default": {"conn_type": "aws"}, "spark_default": {"conn_type": "spark", "host": "local[*,4]"}}
    named = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    named |= {f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in connections.items()}
    return {**named, "AIRFLOW_HOME": str(layout.airflow), "SCARF_ANALYTICS": "false", "DO_NOT_TRACK": "1"}


def digests_at_start(layout: Layout, environment: Mapping[str, str]) -> dict[str, str]:
    """Return, for each of Airflow's processes, the digest of the code and settings that it reads at its start.

    A change requires a restart.
    The api-server runs no code of a DAG, but that of the pages, and knows the settings of those. The triggerer runs that of
    triggers, which get the settings that concern them.
    """
    server = hashlib.sha256(_read(environment, ("AWS_", "AIRFLOW_")))
    for name in ("airflow", "jobs"):
        stamp = layout.environments / name / "stamp"
        server.update(stamp.read_bytes() if stamp.exists() else b"")
    for file in sorted((ROOT / "sandbox" / "airflow_plugins").glob("*.py")):
        server.update(file.read_bytes())
    for folder in (layout.plugins, ROOT / "spark_jobs"):
        for file in sorted(file for file in folder.rglob("*.*") if file.suffix in (".py", *_OF_PAGES)):
            server.update(file.read_bytes())
    triggerer = server.copy()
    for file in sorted(layout.dags.rglob("*.py")):
        triggerer.update(file.read_bytes())
    server.update(_read(environment, _READ_BY_PAGES))
    others = triggerer.copy()
    others.update(_read(environment, ("ORCHARD_", "JAVA_HOME")))
    digests = {"api-server": server, "triggerer": triggerer, "scheduler": others, "dag-processor": others}
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _read(environment: Mapping[str, str], prefixes: tuple[str, ...]) -> bytes:
    return json.dumps({name: value for name, value in environment.items() if name.startswith(prefixes)}, sort_keys=True).encode()
