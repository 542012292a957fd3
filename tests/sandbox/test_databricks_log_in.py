"""Service principals at the Databricks stand-in: by databricks-sdk, and by Airflow's provider over TLS."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound
from support.databricks_stand_in import request_of, serving, write_certificate
from support.databricks_workspace import PRINCIPAL, SECRET


def test_a_service_principal_logs_in(tmp_path: Path) -> None:
    with serving(tmp_path / "state", tmp_path / "objects", "--without-spark") as server:
        principal = WorkspaceClient(host=server.address, client_id=PRINCIPAL, client_secret=SECRET, auth_type="oauth-m2m")
        with pytest.raises(NotFound, match="Run 7 does not exist"):
            principal.jobs.get_run(7)
        answer = requests.post(f"{server.address}/oidc/v1/token", auth=(PRINCIPAL, "other"), timeout=10)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


# Airflow's hook logs in as a task does, and as a trigger does. In a process of its own, for aiohttp reads certificates at import.
LOG_IN = """
import asyncio, json, sys
from airflow.providers.databricks.hooks.databricks import DatabricksHook

hook = DatabricksHook()
run_id = hook.submit_run(json.load(sys.stdin))

async def follow():
    async with DatabricksHook() as other:
        while not (state := await other.a_get_run_state(run_id)).is_terminal:
            await asyncio.sleep(0.2)
        return state

print(asyncio.run(follow()).result_state, hook.get_run_state(run_id).result_state)
"""


def test_airflow_logs_in_as_a_service_principal_over_tls(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "tls.pem")
    variables = {"ORCHARD_TEST_CERTIFICATE": str(certificate)}
    variables |= {"REQUESTS_CA_BUNDLE": str(certificate), "SSL_CERT_FILE": str(certificate)}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        with serving(tmp_path / "state", tmp_path / "objects", "--without-spark") as server:
            assert server.address.startswith("https://")
            for secret, told in ((SECRET, "SUCCESS SUCCESS"), ("wrong", "invalid_client")):
                host, extra = server.address.removeprefix("https://"), {"service_principal_oauth": True}
                connection = {"conn_type": "databricks", "host": host, "login": PRINCIPAL, "password": secret, "extra": extra}
                environment = {**os.environ, "AIRFLOW_CONN_DATABRICKS_DEFAULT": json.dumps(connection)}
                command, asked = [sys.executable, "-c", LOG_IN], json.dumps(request_of("fruit-told"))
                done = subprocess.run(command, input=asked, env=environment, capture_output=True, text=True, check=False)
                assert (done.returncode == 0) == (secret == SECRET), done.stderr
                assert told in (done.stdout if done.returncode == 0 else done.stderr)
