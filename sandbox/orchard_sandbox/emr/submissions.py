"""What a Spark job asks of EMR Serverless or EMR, read and checked: values in, values out.

Cores and memory are not emulated; Orchard's settings check them. What is not known here is refused, never left out.
"""

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from orchard_jobs.contract.locations import S3Location

from orchard_sandbox.s3.landing import ACCOUNT

# Spark's properties that name files, and the option of spark-submit for each.
FILES = {"spark.submit.pyFiles": "--py-files", "spark.archives": "--archives"}
_ENVIRONMENTS = ("spark.executorEnv.", "spark.emr-serverless.driverEnv.", "spark.yarn.appMasterEnv.")
_SIZES = (
    "spark.driver.cores",
    "spark.driver.memory",
    "spark.executor.cores",
    "spark.executor.memory",
    "spark.dynamicAllocation.",
)
# What is known here of a request for an application, and of one for a job run.
_APPLICATION = ("name", "releaseLabel", "type", "clientToken", "tags")
_JOB = (
    *("applicationId", "clientToken", "executionRoleArn", "jobDriver", "configurationOverrides", "tags", "name"),
    "executionTimeoutMinutes",
)


class RequestError(Exception):
    """The request is wrong, or this stand-in does not know what it asks for; each API has an error code for this."""


@dataclass(frozen=True)
class Submission:
    """A Spark job to run.

    Attributes:
        entry_point: URI of the Python script.
        arguments: its command line.
        files: option of spark-submit -> URIs; an archive's may end in `#name`.
        conf: Spark's properties, less those that size the cluster.
        environment: variables that the request gives the driver and the executors, which are one process here.
        runner: words before the command, which is to be run by them.
    """

    entry_point: str
    arguments: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    conf: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    runner: tuple[str, ...] = ()


def refuse_unknown(given: Mapping[str, Any], known: Collection[str], where: str = "") -> None:
    """Raise RequestError for a member that this stand-in does not implement."""
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    if unknown:
        raise RequestError(f"{where}{unknown[0]} is not known here: this stand-in does nothing with it, so it refuses it")


def check_application(given: Mapping[str, Any]) -> None:
    """Check a request for an application."""
    refuse_unknown(given, _APPLICATION)
    if given["type"].upper() != "SPARK":
        raise RequestError(f"type {given['type']} is not known here: only SPARK")
    if not re.fullmatch(r"emr-[67]\.\d{1,2}\.\d(-latest|-\d{8})?", given["releaseLabel"]):
        raise RequestError(f"Type '{given['type']}' is not supported for release label '{given['releaseLabel']}'")


def read_job(given: Mapping[str, Any]) -> Submission:
    """Check a request for a job run and return what it submits."""
    refuse_unknown(given, _JOB)
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
    refuse_unknown(overrides, ("monitoringConfiguration",), "configurationOverrides.")
    monitoring = overrides.get("monitoringConfiguration") or {}
    refuse_unknown(monitoring, ("s3MonitoringConfiguration",), "monitoringConfiguration.")
    uri: str | None = (monitoring.get("s3MonitoringConfiguration") or {}).get("logUri")
    if uri is not None and S3Location.find(uri) is None:
        raise RequestError(f"logUri {uri} is not an S3 URI")
    return uri


def read_submission(spark_submit: Mapping[str, Any]) -> Submission:
    """Return the job that `jobDriver.sparkSubmit` asks for.

    Raises:
        RequestError: something in it is wrong or not known here.
    """
    entry_point = spark_submit["entryPoint"]
    _require_s3(entry_point, "entryPoint")
    if not entry_point.endswith(".py"):
        raise RequestError(f"entryPoint {entry_point} is not a Python script: this stand-in runs no other")
    conf = _read_parameters(spark_submit.get("sparkSubmitParameters") or "")
    files = {option: _uris(conf.pop(name), name) for name, option in FILES.items() if name in conf}
    environment = {
        name.removeprefix(prefix): value for prefix in _ENVIRONMENTS for name, value in conf.items() if name.startswith(prefix)
    }
    passed = {name: value for name, value in conf.items() if not name.startswith((*_ENVIRONMENTS, *_SIZES))}
    for name in passed:
        if name.startswith("spark.emr-serverless.") or name in ("spark.master", "spark.submit.deployMode"):
            raise RequestError(f"{name} is not known here: remove it from sparkSubmitParameters")
    return Submission(entry_point, tuple(spark_submit.get("entryPointArguments") or ()), files, passed, environment)


def _read_parameters(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RequestError(f"sparkSubmitParameters cannot be split into words: {error}") from error
    conf = {}
    for option, setting in zip_longest(words[::2], words[1::2], fillvalue=""):
        name, has_value, value = setting.partition("=")
        if option != "--conf" or not has_value:
            raise RequestError(f"'{option} {setting}' in sparkSubmitParameters is not known here: only `--conf NAME=VALUE` is")
        conf[name] = value
    return conf


def _uris(text: str, name: str) -> tuple[str, ...]:
    uris = tuple(uri.strip() for uri in text.split(",") if uri.strip())
    for uri in uris:
        _require_s3(uri, name)
    return uris


def _require_s3(uri: str, name: str) -> None:
    place = S3Location.find(uri)
    if place is None or not place.key:
        raise RequestError(f"{name} {uri} is not an object on S3: this stand-in fetches s3://bucket/key only")


def read_step(request: Mapping[str, Any]) -> Submission:
    """Return what a step of EMR submits: `spark-submit`, its options, the script and its arguments, by command-runner.jar.

    Before it may stand `bash -c SCRIPT ARGUMENT`, which is to run it.
    """
    name, jar = request["Name"], request["HadoopJarStep"]
    arguments = list(jar.get("Args") or [])
    runner = tuple(arguments[:4]) if arguments[:2] == ["bash", "-c"] else ()
    arguments = arguments[len(runner) :]
    if jar["Jar"] != "command-runner.jar" or arguments[:1] != ["spark-submit"]:
        raise RequestError(f"the step {name} is none that this stand-in runs: command-runner.jar with spark-submit")
    options, rest = [], arguments[1:]
    while rest and rest[0].startswith("--"):
        options.append(rest[:2])
        rest = rest[2:]
    if not rest:
        raise RequestError(f"the step {name} names no script")
    if ["--deploy-mode", "client"] not in options:
        raise RequestError(
            f"the step {name} is not submitted with --deploy-mode client: the driver would be a container of YARN, "
            "which a cancelled step leaves running, and whose log lies elsewhere; this stand-in has neither"
        )
    kept = [word for option in options if option[0] != "--deploy-mode" for word in option]
    spark = {"entryPoint": rest[0], "entryPointArguments": rest[1:], "sparkSubmitParameters": shlex.join(kept)}
    return replace(read_submission(spark), runner=runner)
