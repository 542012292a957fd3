"""The supervisor: starts the stand-ins and Airflow in the right order, and restarts what is down.

It knows nothing of batches. The order: `db migrate`; api-server and dag-processor; both warm; scheduler and triggerer.
Started all at once, as `airflow standalone` does, the first tasks die of a cold Execution API.
"""

import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.files import write_whole
from orchard_sandbox.job_execution.processes import SIGNALS, ProcessRecord, end_processes, is_running, start_process, wait_for_end
from orchard_sandbox.job_execution.serving import listen
from orchard_sandbox.stack.airflow_api import AirflowApi
from orchard_sandbox.stack.process_environment import airflow_environment, digests_at_start
from orchard_sandbox.stack.runs import ACTIVE_STATES
from orchard_sandbox.stack.stack_paths import ROOT, USER, Layout
from orchard_sandbox.stack.stack_state import STOP_SECONDS, StackState, read_state, write_state
from orchard_sandbox.stack.target_stand_ins import EMR_TARGETS, make_warehouse_bucket, target_settings

S3, DATABRICKS = "s3-stand-in", "databricks-stand-in"
STAND_INS = (S3, DATABRICKS)
API_SERVER = "api-server"
AIRFLOW = (API_SERVER, "dag-processor", "scheduler", "triggerer")
POOL, POOL_SLOTS = "spark", 1
WARM_SECONDS = 300.0


class Supervisor:
    """One stack. The caller of `start` holds the lock of `state`.

    Attributes:
        environment: of Airflow's processes, once these are started.
    """

    def __init__(self, layout: Layout, variables: Mapping[str, str], say: Callable[[str], None] = print) -> None:
        self._layout = layout
        self._variables = variables
        self._say = say
        self._state = read_state(layout)
        self.environment: dict[str, str] = {}

    def start(self, dag_ids: tuple[str, ...]) -> tuple[StackState, AirflowApi]:
        """Start what does not run, or runs with other settings, and wait until Airflow knows some DAGs.

        Raises:
            SandboxError: a process ended, or did not get ready in time; with the end of its log.
        """
        self._layout.create()
        if not self._layout.password_file.exists():
            write_whole(self._layout.password_file, json.dumps({USER: secrets.token_urlsafe(12)}))
        self._ensure_s3()
        return self._state, self._start_airflow(dag_ids)

    def check(self) -> None:
        """Raise SandboxError when a process of the stack has ended."""
        for name in (S3, *AIRFLOW):
            if not self._is_up(name):
                raise self._failure(name, "has ended")

    def _ensure_s3(self) -> None:
        layout = self._layout
        environment = airflow_environment(layout, self._state, self._variables)
        options: dict[str, Any] = {"folder": layout.landing}
        if environment["ORCHARD_TARGET"] in EMR_TARGETS:  # else no call to EMR can start anything
            options |= {"python": layout.environments / "jobs" / "bin" / "python", "work": layout.home / "emr-serverless"}
        self._ensure_stand_in(S3, "S3 stand-in", "orchard_sandbox.aws_stand_in", layout.address_file, options, environment)
        self._state.s3_port = int(layout.address_file.read_text().rpartition(":")[2])
        write_state(layout, self._state)

    def _ensure_databricks(self) -> None:
        layout = self._layout
        options = {"folder": layout.home / "databricks", "objects": layout.landing}
        options |= {"python": layout.environments / "jobs" / "bin" / "python"}
        environment = {**self.environment, "DATABRICKS_TOKEN": layout.secret("databricks")}
        module = "orchard_sandbox.databricks.stand_in"
        self._ensure_stand_in(DATABRICKS, "Databricks stand-in", module, layout.databricks_file, options, environment)

    def _ensure_stand_in(
        self, name: str, what: str, module: str, address: Path, options: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        """Start a stand-in, on its former port; one that runs with other options, or is of an earlier release, is restarted."""
        given = [f"--{option}={value}" for option, value in {**options, "address-file": address}.items()]
        if self._is_up(name):
            if self._state.digests.get(name) == " ".join(given):
                return
            end_processes([self._state.processes[name]], "", STOP_SECONDS)
        with self._step(what):
            port = f"--port={address.read_text().rpartition(':')[2] if address.exists() else 0}"
            address.unlink(missing_ok=True)
            command = [str(self._layout.airflow_python), "-m", module, *given, port]
            self._state.digests[name] = " ".join(given)
            self._spawn(name, command, {**environment, "PYTHONPATH": str(ROOT / "sandbox")})
            self._wait_until(name, address.exists)

    def _start_airflow(self, dag_ids: tuple[str, ...]) -> AirflowApi:
        if not self._is_up(API_SERVER):
            self._state.api_port = free_port(self._state.api_port)
        self.environment = airflow_environment(self._layout, self._state, self._variables)
        if self.environment["ORCHARD_TARGET"] == "databricks":
            self._ensure_databricks()
        make_warehouse_bucket(self.environment)
        if self.environment["ORCHARD_TARGET"] != "local":
            with self._step("the jobs' package, deployed"):
                self.environment |= target_settings(self._layout, self.environment)
        digests = digests_at_start(self._layout, self.environment)
        outdated = [name for name in AIRFLOW if digests[name] != self._state.digests.get(name)]
        if outdated and any(self._is_up(name) for name in AIRFLOW):
            self._say(f"start: settings or code differ from those at the start of {', '.join(outdated)}: restarting")
            self._end_airflow(spared={*STAND_INS, *AIRFLOW} - {*outdated})
        self._state.digests |= digests
        self._migrate()
        api = AirflowApi(self._state.api_address, self._layout.password_file)
        if not all(self._is_up(name) for name in AIRFLOW) or not api.is_healthy():
            self._start_processes(api)
        since = self._state.processes["dag-processor"].started_at

        def knows_dags() -> bool:
            return all(api.has_dag(dag_id, since) for dag_id in dag_ids)

        if not knows_dags():
            with self._step("DAGs"):
                self._wait_until("dag-processor", knows_dags, api)
        return api

    def _start_processes(self, api: AirflowApi) -> None:
        with self._step("Airflow's api-server and dag-processor"):
            self._ensure(API_SERVER, "--host", "127.0.0.1", "--port", str(self._state.api_port), "--workers", "1")
            self._ensure("dag-processor")
            self._wait_until(API_SERVER, api.is_healthy)
        self._end_runs_of_others(api)
        with self._step("Airflow's scheduler and triggerer"):  # not waited for: the upload comes first, and they get ready
            api.set_pool(POOL, POOL_SLOTS)
            self._ensure("scheduler", "--skip-serve-logs")
            self._ensure("triggerer", "--skip-serve-logs")

    def _end_runs_of_others(self, api: AirflowApi) -> None:
        """End unfinished runs of another warehouse or target: resumed, they would write into this one.

        Called while there is no scheduler.
        """
        record = self._layout.airflow / "runs_of.json"
        own = {name: self.environment[name] for name in ("ORCHARD_WAREHOUSE", "ORCHARD_TARGET")}
        former = json.loads(record.read_text()) if record.exists() else own
        ended = api.runs("~", ACTIVE_STATES) if former != own else []
        for run in ended:
            api.fail_run(run["dag_id"], run["dag_run_id"])
        if ended:
            those = " ".join(f"{name.removeprefix('ORCHARD_')}={value}" for name, value in former.items())
            self._say(f"start: {len(ended)} runs that were cut off are ended as failed; `make run {those}` does their work")
        record.write_text(json.dumps(own))

    def _migrate(self) -> None:
        """Create or migrate Airflow's database; one whose creation was interrupted is created again."""
        done, database = self._layout.airflow / "migrated", self._layout.airflow / "airflow.db"
        if done.exists() and database.exists() and done.read_text() == version("apache-airflow"):
            return
        with self._step("Airflow's database"):
            if not done.exists():
                self._end_airflow()
                database.unlink(missing_ok=True)
            record = self._spawn_airflow("migrate", "db", "migrate")
            status = wait_for_end(record, WARM_SECONDS)
            if status != 0:
                raise self._failure("migrate", "did not end well")
            del self._state.processes["migrate"]
            done.write_text(version("apache-airflow"))

    def _ensure(self, name: str, *arguments: str) -> None:
        if self._is_up(name):
            return
        # A killed scheduler leaves its workers, which ignore SIGINT; no marker, so that only they end.
        if name in self._state.processes:
            end_processes([self._state.processes[name]], "", STOP_SECONDS, signals=SIGNALS[1:])
        self._spawn_airflow(name, name, *arguments)

    def _spawn_airflow(self, name: str, *arguments: str) -> ProcessRecord:
        command = [str(self._layout.airflow_python), "-P", "-m", "airflow", *arguments]
        return self._spawn(name, command, self.environment)

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str]) -> ProcessRecord:
        """Start a process and record it; a Ctrl-C in between waits, so that no process lacks a record."""
        with interrupts_held():
            record = start_process(name, command, environment, self._log(name), self._layout.home)
            self._state.processes[name] = record
            write_state(self._layout, self._state)
        return record

    def _is_up(self, name: str) -> bool:
        return name in self._state.processes and is_running(self._state.processes[name])

    def _wait_until(self, name: str, is_ready: Callable[[], bool], api: AirflowApi | None = None) -> None:
        """Wait until a process is ready; raise when it has ended or takes too long."""
        deadline = time.monotonic() + WARM_SECONDS
        while not is_ready():
            if not self._is_up(name):
                raise self._failure(name, "has ended")
            broken = api.import_errors() if api else []
            if broken:
                raise SandboxError("Airflow could not read a DAG file: " + "\n".join(broken))
            if time.monotonic() > deadline:
                raise self._failure(name, f"was not ready within {WARM_SECONDS:.0f} s")
            time.sleep(0.3)

    def _failure(self, name: str, what: str) -> SandboxError:
        return SandboxError(f"{name} {what}: `make run` starts it again; {self._log(name)} ends with\n{self._log_end(name)}")

    def _log(self, name: str) -> Path:
        return self._layout.logs / f"{name}.log"

    def _log_end(self, name: str) -> str:
        log = self._log(name)
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""

    def _end_airflow(self, spared: Collection[str] = STAND_INS) -> None:
        records = [record for name, record in self._state.processes.items() if name not in spared]
        kept = {name: record for name, record in self._state.processes.items() if name in spared}
        # Tasks and Spark jobs are found by the marker, which the spared ones carry too.
        end_processes(records, self._layout.marker, STOP_SECONDS, spared={record.pid for record in kept.values()})
        self._state.processes = kept
        write_state(self._layout, self._state)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self._say(f"start: {what:<40} {time.monotonic() - begin:5.1f} s")


def free_port(wanted: int = 0) -> int:
    """Return a port of 127.0.0.1 that is free now: the wanted one if it is."""
    with listen(wanted) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the end of the block; a signal mask would be inherited by a child."""
    held: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {int(number): signal.signal(number, lambda got, _: held.append(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        for number in held:
            os.kill(os.getpid(), number)
