"""Checks the requests to EMR Serverless. It knows no application and no job run.

A member that AWS knows and this stand-in does not implement is refused, never ignored.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from orchard_jobs.contract.locations import S3Location

from orchard_sandbox.emr.submissions import RequestError, Submission, read_submission
from orchard_sandbox.s3.landing import ACCOUNT

_APPLICATION_MEMBERS = ("name", "releaseLabel", "type", "clientToken", "tags")
_JOB_MEMBERS = (
    *("applicationId", "clientToken", "executionRoleArn", "jobDriver", "configurationOverrides", "tags", "name"),
    "executionTimeoutMinutes",
)


def check_application(given: Mapping[str, Any]) -> None:
    """Check a request for an application."""
    _refuse_unknown(given, _APPLICATION_MEMBERS)
    if given["type"].upper() != "SPARK":
        raise RequestError(f"type {given['type']} is not known here: only SPARK")
    if not re.fullmatch(r"emr-[67]\.\d{1,2}\.\d(-latest|-\d{8})?", given["releaseLabel"]):
        raise RequestError(f"Type '{given['type']}' is not supported for release label '{given['releaseLabel']}'")


def read_job(given: Mapping[str, Any]) -> Submission:
    """Check a request for a job run and return what it submits."""
    _refuse_unknown(given, _JOB_MEMBERS)
    if given["executionRoleArn"].split(":")[4] != ACCOUNT:
        raise RequestError(f"executionRoleArn {given['executionRoleArn']} is a role of another account than {ACCOUNT}")
    minutes = given.get("executionTimeoutMinutes")
    if minutes and minutes < 5:
        raise RequestError("RunTimeout must be at least 5 minutes.")
    logs_uri(given)
    driver = given.get("jobDriver") or {}
    if list(driver) != ["sparkSubmit"]:
        raise RequestError(f"jobDriver {', '.join(driver) or 'null'} is not known here: only sparkSubmit")
    return read_submission(driver["sparkSubmit"])


def logs_uri(given: Mapping[str, Any]) -> str | None:
    """Return the S3 URI that a request for a job run wants its logs below."""
    overrides = given.get("configurationOverrides") or {}
    _refuse_unknown(overrides, ("monitoringConfiguration",), "configurationOverrides.")
    monitoring = overrides.get("monitoringConfiguration") or {}
    _refuse_unknown(monitoring, ("s3MonitoringConfiguration",), "monitoringConfiguration.")
    uri: str | None = (monitoring.get("s3MonitoringConfiguration") or {}).get("logUri")
    if uri is not None and S3Location.find(uri) is None:
        raise RequestError(f"logUri {uri} is not an S3 URI")
    return uri


def _refuse_unknown(given: Mapping[str, Any], known: Collection[str], where: str = "") -> None:
    """Raise RequestError for a member that this stand-in does not implement."""
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    if unknown:
        raise RequestError(f"{where}{unknown[0]} is not known here: this stand-in does nothing with it, so it refuses it")
