"""Checks the requests to EMR Serverless. It knows no application and no job run.

A member that AWS knows and this stand-in does not implement is refused, never ignored.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from orchard_jobs.contract.locations import S3Location

from orchard_sandbox.emr.submissions import RequestError, Submission, read_submission
from orchard_sandbox.s3.landing import ACCOUNT

_APPLICATION_MEMBERS = (
    *("name", "releaseLabel", "type", "clientToken", "tags", "architecture", "monitoringConfiguration"),
    *("autoStartConfiguration", "autoStopConfiguration", "networkConfiguration", "imageConfiguration"),
)
_JOB_MEMBERS = (
    *("applicationId", "clientToken", "executionRoleArn", "jobDriver", "configurationOverrides", "tags", "name", "mode"),
    *("executionTimeoutMinutes", "retryPolicy"),
)


def check_application(given: Mapping[str, Any]) -> None:
    """Check a request for an application."""
    _refuse_unknown(given, _APPLICATION_MEMBERS)
    if given["type"].upper() != "SPARK":
        raise RequestError(f"type {given['type']} is not known here: only SPARK")
    if not re.fullmatch(r"emr-[67]\.\d{1,2}\.\d(-latest|-\d{8})?", given["releaseLabel"]):
        raise RequestError(f"Type '{given['type']}' is not supported for release label '{given['releaseLabel']}'")
    _check_monitoring(given.get("monitoringConfiguration"))


def read_job(given: Mapping[str, Any]) -> Submission:
    """Check a request for a job run and return what it submits."""
    _refuse_unknown(given, _JOB_MEMBERS)
    if given["executionRoleArn"].split(":")[4] != ACCOUNT:
        raise RequestError(f"executionRoleArn {given['executionRoleArn']} is a role of another account than {ACCOUNT}")
    minutes = given.get("executionTimeoutMinutes")
    if minutes and minutes < 5:
        raise RequestError("RunTimeout must be at least 5 minutes.")
    if given.get("mode") not in (None, "BATCH"):
        raise RequestError(f"mode {given['mode']} is not known here: only BATCH")
    policy = given.get("retryPolicy") or {}
    if policy.get("maxAttempts", 1) > 10 or "maxFailedAttemptsPerHour" in policy:
        raise RequestError("retryPolicy of a batch job takes maxAttempts from 1 to 10 only")
    driver = given.get("jobDriver") or {}
    if list(driver) != ["sparkSubmit"]:
        raise RequestError(f"jobDriver {', '.join(driver) or 'null'} is not known here: only sparkSubmit")
    return read_submission(driver["sparkSubmit"], _spark_defaults(given.get("configurationOverrides") or {}))


def _spark_defaults(overrides: Mapping[str, Any]) -> dict[str, str]:
    _refuse_unknown(overrides, ("applicationConfiguration", "monitoringConfiguration"), "configurationOverrides.")
    _check_monitoring(overrides.get("monitoringConfiguration"))
    defaults: dict[str, str] = {}
    for configuration in overrides.get("applicationConfiguration") or []:
        if configuration["classification"] != "spark-defaults" or configuration.get("configurations"):
            raise RequestError(f"classification {configuration['classification']} is not known here: only spark-defaults, flat")
        defaults |= configuration.get("properties") or {}
    return defaults


def _check_monitoring(given: Mapping[str, Any] | None) -> None:
    given = given or {}
    _refuse_unknown(given, ("s3MonitoringConfiguration", "managedPersistenceMonitoringConfiguration"), "monitoringConfiguration.")
    uri = (given.get("s3MonitoringConfiguration") or {}).get("logUri")
    if uri is not None and S3Location.find(uri) is None:
        raise RequestError(f"logUri {uri} is not an S3 URI")


def _refuse_unknown(given: Mapping[str, Any], known: Collection[str], where: str = "") -> None:
    """Raise RequestError for a member that this stand-in does not implement."""
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    if unknown:
        raise RequestError(f"{where}{unknown[0]} is not known here: this stand-in does nothing with it, so it refuses it")
