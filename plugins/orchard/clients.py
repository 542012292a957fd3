"""Clients of the services that the commands reach: by the environment's own variables, or by an Airflow connection.

Airflow and the vendors' libraries are loaded only when they are asked for: each costs a second or more.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from orchard_jobs.errors import ConfigurationError, JobError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

# The SDK's own 300 s are long at a terminal, and it asks an address twice before it gives it up.
_RETRY_SECONDS = 30


def add_log_in(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names an Airflow connection."""
    parser.add_argument(
        "--connection", metavar="ID", help="log in with this Airflow connection, not with the AWS_* or DATABRICKS_* environment"
    )


def aws_client(service: str, connection: str | None) -> Any:
    """Return boto3's client of a service, by an Airflow connection's id, or without one by the AWS_* environment.

    Raises:
        ConfigurationError: Airflow has no such connection.
        BotoCoreError: the service needs a region, and none is named.
    """
    if connection is None:
        import boto3

        # boto3 by itself knows AWS_DEFAULT_REGION alone.
        client: Callable[..., Any] = boto3.client  # whose stubs know services by their literal names
        return client(service, region_name=os.environ.get("AWS_REGION"))
    with redirect_stdout(sys.stderr):  # Airflow logs to stdout, where the answer goes
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        _connection(connection)
        return AwsBaseHook(connection, client_type=service).get_conn()


@contextmanager
def explaining_aws_errors(doing: str, needs: str) -> Iterator[None]:
    """Turn boto3's errors into a JobError: what could not be done, why, and what it needs."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, Boto3Error, ClientError) as error:
        raise JobError(
            f"cannot {doing}: {error}: set AWS_ENDPOINT_URL, AWS_REGION and credentials, or name an Airflow connection by "
            f"--connection; {needs}"
        ) from error


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


@contextmanager
def explaining_databricks_errors(doing: str, needs: str) -> Iterator[None]:
    """Turn databricks-sdk's errors into a JobError: what could not be done, why, and what it needs."""
    from databricks.sdk.errors.base import DatabricksError
    from requests import RequestException

    try:
        yield
    except (DatabricksError, RequestException, TimeoutError, ValueError) as error:  # the last: no token for a secret
        raise JobError(f"cannot {doing}: {str(error).strip() or type(error).__name__}: check the credentials; {needs}") from error


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
