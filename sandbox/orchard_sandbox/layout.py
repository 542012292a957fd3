"""Where the stack keeps everything: one folder, `.orchard` or ORCHARD_HOME, that a stop keeps and a clean removes."""

import hashlib
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MARK = "orchard-home"


@dataclass(frozen=True)
class Layout:
    """The paths of one stack.

    Attributes:
        home: the folder of everything that the stack writes.
        dags: Airflow's folder of DAG files.
        plugins: Airflow's folder of plugins.
        environments: the folder of the two Python environments.
    """

    home: Path
    dags: Path = ROOT / "dags"
    plugins: Path = ROOT / "plugins"
    environments: Path = ROOT / ".venv"

    @classmethod
    def of_environment(cls) -> "Layout":
        """Return the layout of this checkout: `.orchard` unless ORCHARD_HOME names another folder."""
        return cls(Path(os.environ.get("ORCHARD_HOME") or ROOT / ".orchard").resolve())

    @property
    def marker(self) -> str:
        """The value of ORCHARD_STACK_ID in the environment of each process of this stack, the same at every start."""
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:32]

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.home / "logs"

    @property
    def landing(self) -> Path:
        """The S3 stand-in's objects."""
        return self.home / "landing"

    @property
    def address_file(self) -> Path:
        """The S3 stand-in's address, there while it listens."""
        return self.home / "s3-address"

    @property
    def databricks_file(self) -> Path:
        """The Databricks stand-in's address; it stays when that ends, for the next one takes the same port."""
        return self.home / "databricks-address"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME: the database and the task logs."""
        return self.home / "airflow"

    @property
    def password_file(self) -> Path:
        """JSON of user name to password, as SimpleAuthManager reads it."""
        return self.home / "airflow-password.json"

    @property
    def state_file(self) -> Path:
        """What runs: see `state`."""
        return self.home / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one command that changes the stack."""
        return self.home / "lock"

    @property
    def command(self) -> Path:
        """The script that runs `orchard` on this stack."""
        return self.home / "orchard"

    @property
    def samples(self) -> Path:
        """The drawn images."""
        return self.home / "samples"

    @property
    def airflow_python(self) -> Path:
        """Airflow's Python; the one that runs this when the environments lie elsewhere (in tests)."""
        python = self.environments / "airflow" / "bin" / "python"
        return python if python.exists() else Path(sys.executable)

    def create(self) -> None:
        """Make the folders; the home is for its owner alone, it holds logs and secrets."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / _MARK).touch()
        for folder in (self.logs, self.airflow, self.landing, self.home / "lineage"):
            folder.mkdir(exist_ok=True)

    def is_ours(self) -> bool:
        """Say whether the home was made by `create`, so that a clean never removes a folder of somebody's."""
        return (self.home / _MARK).exists()

    def secret(self, name: str) -> str:
        """Return a random secret of 96 characters that is made once and that only the user can read."""
        path = self.home / f"secret-{name}"
        if not path.exists():
            write_private(path, secrets.token_hex(48))
        return path.read_text()


def write_private(path: Path, text: str) -> None:
    """Write a file, whole or not at all, that only its owner can read."""
    fresh = path.with_name(f"{path.name}.part")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.replace(fresh, path)
