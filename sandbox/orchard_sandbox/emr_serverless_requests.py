"""What EMR Serverless's requests may ask for here: checks, and the API's errors. It knows no application and no job run.

A member that AWS knows and that nothing is done with here is refused, never taken in silence.
"""

import re
from collections.abc import Mapping
from typing import Any

from orchard_sandbox.aws_responses import ApiError
from orchard_sandbox.landing import ACCOUNT
from orchard_sandbox.spark_submission import Submission, UnknownRequestError, check_worker, read_submission

APPLICATION_MEMBERS = {
    "name", "releaseLabel", "type", "clientToken", "initialCapacity", "maximumCapacity", "tags", "autoStartConfiguration",
    "autoStopConfiguration", "networkConfiguration", "architecture", "imageConfiguration", "monitoringConfiguration",
}  # fmt: skip
JOB_MEMBERS = {
    "applicationId", "clientToken", "executionRoleArn", "jobDriver", "configurationOverrides", "tags", "executionTimeoutMinutes",
    "name", "mode", "retryPolicy",
}  # fmt: skip


def invalid(message: str) -> ApiError:
    """Return the API's ValidationException."""
    return ApiError("ValidationException", message)


def missing(what: str, name: str) -> ApiError:
    """Return the API's ResourceNotFoundException."""
    return ApiError("ResourceNotFoundException", f"{what} {name} does not exist")


def check_application(given: Mapping[str, Any]) -> None:
    """Check a request for an application."""
    refuse_unknown(given, APPLICATION_MEMBERS)
    if given["type"].upper() != "SPARK":
        raise invalid(f"type {given['type']} is not known here: only SPARK")
    if not re.fullmatch(r"emr-[67]\.\d{1,2}\.\d(-latest|-\d{8})?", given["releaseLabel"]):
        raise invalid(f"Type '{given['type']}' is not supported for release label '{given['releaseLabel']}'")
    _check_monitoring(given.get("monitoringConfiguration"))
    for name, capacity in (given.get("initialCapacity") or {}).items():
        _check_capacity(name, capacity)


def read_job(given: Mapping[str, Any]) -> Submission:
    """Check a request for a job run and return what it submits."""
    refuse_unknown(given, JOB_MEMBERS)
    if given["executionRoleArn"].split(":")[4] != ACCOUNT:
        raise invalid(f"executionRoleArn {given['executionRoleArn']} is a role of another account than {ACCOUNT}")
    minutes = given.get("executionTimeoutMinutes")
    if minutes and minutes < 5:
        raise invalid("RunTimeout must be at least 5 minutes.")
    if given.get("mode") not in (None, "BATCH"):
        raise invalid(f"mode {given['mode']} is not known here: only BATCH")
    policy = given.get("retryPolicy") or {}
    if policy.get("maxAttempts", 1) > 10 or "maxFailedAttemptsPerHour" in policy:
        raise invalid("retryPolicy of a batch job takes maxAttempts from 1 to 10 only")
    driver = given.get("jobDriver") or {}
    if list(driver) != ["sparkSubmit"]:
        raise invalid(f"jobDriver {', '.join(driver) or 'null'} is not known here: only sparkSubmit")
    overrides = given.get("configurationOverrides") or {}
    refuse_unknown(overrides, {"applicationConfiguration", "monitoringConfiguration"}, "configurationOverrides.")
    _check_monitoring(overrides.get("monitoringConfiguration"))
    defaults: dict[str, str] = {}
    for configuration in overrides.get("applicationConfiguration") or []:
        if configuration["classification"] != "spark-defaults" or configuration.get("configurations"):
            raise invalid(f"classification {configuration['classification']} is not known here: only spark-defaults, flat")
        defaults |= configuration.get("properties") or {}
    try:
        return read_submission(driver["sparkSubmit"], defaults)
    except UnknownRequestError as error:
        raise invalid(str(error)) from error


def _check_monitoring(given: Mapping[str, Any] | None) -> None:
    given = given or {}
    refuse_unknown(given, {"s3MonitoringConfiguration", "managedPersistenceMonitoringConfiguration"}, "monitoringConfiguration.")
    uri = (given.get("s3MonitoringConfiguration") or {}).get("logUri")
    if uri is not None and not re.fullmatch(r"s3://[^/]+(/.*)?", uri):
        raise invalid(f"logUri {uri} is no S3 URI")


def _check_capacity(name: str, capacity: Mapping[str, Any]) -> None:
    worker = capacity.get("workerConfiguration")
    if name not in ("Driver", "Executor"):
        raise invalid(f"initialCapacity {name} is not known here: Spark has Driver and Executor")
    if worker:
        cores, memory = (int(re.sub(r"\D.*", "", worker[key])) for key in ("cpu", "memory"))
        try:
            check_worker(cores, memory, f"initialCapacity {name}")
        except UnknownRequestError as error:
            raise invalid(str(error)) from error


def refuse_unknown(given: Mapping[str, Any], known: set[str], where: str = "") -> None:
    """Raise a ValidationException for a member that nothing is done with here."""
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    if unknown:
        raise invalid(f"{where}{unknown[0]} is not known here: this stand-in does nothing with it, so it refuses it")
