"""Clients of the vendors' services: by the environment or by an Airflow connection, and what is said when neither serves."""

import pytest
from orchard.clients import aws_client, databricks_client, explaining_aws_errors, explaining_databricks_errors
from orchard_jobs.errors import ConfigurationError, JobError

pytestmark = pytest.mark.usefixtures("no_cloud")


def test_the_environment_names_the_region_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert aws_client("s3", None).meta.region_name == "eu-central-1"


def test_the_environment_logs_in_to_databricks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("DATABRICKS_TOKEN", "a-token")
    found = databricks_client(None).config
    assert (found.host, found.token) == ("http://127.0.0.1:1", "a-token")


def test_without_a_log_in_databricks_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="set DATABRICKS_HOST with DATABRICKS_TOKEN"):
        databricks_client(None)


def test_a_fault_of_aws_says_what_could_not_be_done_and_what_it_needs() -> None:
    with (
        pytest.raises(JobError, match=r"cannot list s3://a: .*set AWS_ENDPOINT_URL.*; the bucket must be there"),
        explaining_aws_errors("list s3://a", "the bucket must be there"),
    ):
        aws_client("sqs", None)


def test_a_fault_of_databricks_names_its_kind_where_it_has_no_words() -> None:
    with (
        pytest.raises(JobError, match="cannot read /Volumes/a: TimeoutError: check the credentials; the volume must be there"),
        explaining_databricks_errors("read /Volumes/a", "the volume must be there"),
    ):
        raise TimeoutError
