"""Clients of the stores that the commands reach: by the environment's own variables, or by an Airflow connection.

Airflow and the vendors' libraries are loaded only when they are asked for: each costs a second or more.
"""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from orchard_jobs.errors import ConfigurationError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

# The SDK's own 300 s are long at a terminal, and it asks an address twice before it gives it up.
_RETRY_SECONDS = 30


def s3_client(connection: str | None) -> Any:
    """Return boto3's client of S3, by an Airflow connection's id, or without one by the AWS_* environment.

    Raises:
        ConfigurationError: Airflow has no such connection.
    """
    if connection is None:
        import boto3

        return boto3.client("s3")
    with redirect_stdout(sys.stderr):  # Airflow logs to stdout, where the answer goes
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        _connection(connection)
        return S3Hook(connection).get_conn()


def databricks_client(connection: str | None) -> "WorkspaceClient":
    """Return databricks-sdk's client, by an Airflow connection's id, or without one by the DATABRICKS_* environment.

    Of a connection it takes host, schema and port, and a token or (`service_principal_oauth` in its extra) id and secret.

    Raises:
        ConfigurationError: Airflow has no such connection, or host or credentials are missing or do not go together.
    """
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.config import Config

    named: dict[str, Any] = _credentials(connection) if connection else {}
    try:
        return WorkspaceClient(config=Config(retry_timeout_seconds=_RETRY_SECONDS, **named))
    except ValueError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"no log-in to Databricks: {reason}: set DATABRICKS_HOST with DATABRICKS_TOKEN (or DATABRICKS_CLIENT_ID and "
            "DATABRICKS_CLIENT_SECRET), or name an Airflow connection by --connection"
        ) from error


def _credentials(connection_id: str) -> dict[str, str]:
    with redirect_stdout(sys.stderr):
        found = _connection(connection_id)
    extra = found.extra_dejson
    host = str(extra.get("host") or found.host or "").rpartition("://")[2].rstrip("/")
    port = f":{found.port}" if found.port else ""
    address = {"host": f"{found.schema or 'https'}://{host}{port}" if host else ""}
    if extra.get("service_principal_oauth"):
        return address | {"client_id": found.login or "", "client_secret": found.password or "", "auth_type": "oauth-m2m"}
    return address | {"token": str(extra.get("token") or found.password or ""), "auth_type": "pat"}


def _connection(connection_id: str) -> Any:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(connection_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"Airflow has no connection {connection_id!r}: add it, or name another by --connection"
        ) from error
