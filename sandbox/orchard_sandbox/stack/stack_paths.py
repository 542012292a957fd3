"""The paths of a stack: everything lies in one folder, `.orchard` or ORCHARD_HOME, until `make clean`."""

import hashlib
import os
import secrets
import sys
from pathlib import Path

from orchard_sandbox.files import write_whole

ROOT = Path(__file__).resolve().parents[3]
# Of Airflow's UI and API.
USER = "admin"


class Layout:
    """The paths of one stack.

    Attributes:
        home: the folder of everything that the stack writes.
        dags: Airflow's folder of DAG files.
        plugins: the product's folder of plugins.
        airflow_plugins: Airflow's, which holds the product's and the stack's own.
        environments: the folder of the two Python environments.
        marker: the value of ORCHARD_STACK_ID in the environment of each process of this stack, the same at every start.
        logs: one file for each process.
        landing: the S3 stand-in's objects.
        address_file: the S3 stand-in's address; it stays when that ends, for the next one takes the same port.
        databricks_file: the Databricks stand-in's address, likewise.
        airflow: AIRFLOW_HOME: the database and the task logs.
        password_file: JSON of user name to password, as SimpleAuthManager reads it.
        aws_keys: a shell's variables that give other tools the S3 stand-in and its queue.
        state_file: what runs: see `state`.
        lock_file: held by the one command that changes the stack.
        command: the script that runs `orchard` on this stack.
        samples: the drawn images.
    """

    def __init__(
        self,
        home: Path,
        dags: Path = ROOT / "dags",
        plugins: Path = ROOT / "plugins",
        environments: Path = ROOT / ".venv",
    ) -> None:
        self.home, self.dags, self.plugins, self.environments = home, dags, plugins, environments
        self.marker = hashlib.sha256(str(home).encode()).hexdigest()[:32]
        self.logs, self.landing, self.airflow, self.samples = (home / name for name in ("logs", "landing", "airflow", "samples"))
        self.address_file, self.databricks_file = home / "s3-address", home / "databricks-address"
        self.password_file, self.state_file, self.lock_file = home / "airflow-password.json", home / "stack.json", home / "lock"
        self.airflow_plugins = self.airflow / "plugins"
        self.aws_keys = home / "aws.env"
        self.command, self._mark = home / "orchard", home / "orchard-home"

    @classmethod
    def of_environment(cls) -> "Layout":
        """Return the layout of this checkout: `.orchard` unless ORCHARD_HOME names another folder."""
        return cls(Path(os.environ.get("ORCHARD_HOME") or ROOT / ".orchard").resolve())

    @property
    def airflow_python(self) -> Path:
        """Airflow's Python; the one that runs this when the environments lie elsewhere (in tests)."""
        python = self.environments / "airflow" / "bin" / "python"
        return python if python.exists() else Path(sys.executable)

    def create(self) -> None:
        """Make the folders; the home is for its owner alone, it holds logs and secrets."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mark.touch()
        for folder in (self.logs, self.airflow, self.landing, self.home / "lineage"):
            folder.mkdir(exist_ok=True)
        self.airflow_plugins.mkdir(exist_ok=True)
        for name, folder in (("product", self.plugins), ("stack", ROOT / "sandbox" / "airflow_plugins")):
            link = self.airflow_plugins / name
            link.unlink(missing_ok=True)
            link.symlink_to(folder)

    def is_ours(self) -> bool:
        """Say whether the home was made by `create`, so that a clean never removes a folder of somebody's."""
        return self._mark.exists()

    def secret(self, name: str) -> str:
        """Return a random secret of 96 characters that is made once and that only the user can read."""
        path = self.home / f"secret-{name}"
        if not path.exists():
            write_whole(path, secrets.token_hex(48))
        return path.read_text()
