"""What a Spark job asks of EMR Serverless or EMR, read and checked: values in, values out.

Cores and memory are checked as AWS checks them, and not emulated. What is not known here is refused, never left out.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchard_jobs.contract.locations import S3Location

# GB of memory that AWS allows for a worker's vCPUs, overhead included.
LARGEST_MEMORY = {1: 8, 2: 16, 4: 30, 8: 60, 16: 120}
FILE_OPTIONS = {
    "--py-files": "spark.submit.pyFiles",
    "--files": "spark.files",
    "--archives": "spark.archives",
    "--jars": "spark.jars",
}
_ENVIRONMENTS = ("spark.executorEnv.", "spark.emr-serverless.driverEnv.", "spark.yarn.appMasterEnv.")
_SIZES = ("cores", "memory", "memoryOverhead", "memoryOverheadFactor", "instances")
_UNUSED = (
    *(f"spark.{who}.{what}" for who in ("driver", "executor") for what in _SIZES),
    "spark.dynamicAllocation.",
    "spark.emr-serverless.driver.disk",
    "spark.emr-serverless.executor.disk",
    "spark.emr-serverless.memoryOverheadFactor",
    "spark.emr-serverless.allocation.batch.size",
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


def read_submission(spark_submit: Mapping[str, Any], defaults: Mapping[str, str]) -> Submission:
    """Return the job that `jobDriver.sparkSubmit` asks for.

    Args:
        spark_submit: the member of the request.
        defaults: properties of the classification spark-defaults.

    Raises:
        RequestError: something in it is wrong or not known here.
    """
    entry_point = spark_submit["entryPoint"]
    _require_s3(entry_point, "entryPoint")
    if not entry_point.endswith(".py"):
        raise RequestError(f"entryPoint {entry_point} is not a Python script: this stand-in runs no other")
    conf = {**defaults, **_read_parameters(spark_submit.get("sparkSubmitParameters") or "")}
    _check_sizes(conf)
    files = {option: _uris(conf.pop(name, ""), name) for option, name in FILE_OPTIONS.items()}
    environment = {
        name.removeprefix(prefix): value for prefix in _ENVIRONMENTS for name, value in conf.items() if name.startswith(prefix)
    }
    passed = {name: value for name, value in conf.items() if not name.startswith((*_ENVIRONMENTS, *_UNUSED))}
    for name in passed:
        if name.startswith("spark.emr-serverless.") or name in ("spark.master", "spark.submit.deployMode"):
            raise RequestError(f"{name} is not known here: remove it from sparkSubmitParameters")
    arguments = tuple(spark_submit.get("entryPointArguments") or ())
    return Submission(entry_point, arguments, {option: uris for option, uris in files.items() if uris}, passed, environment)


def _read_parameters(text: str) -> dict[str, str]:
    conf: dict[str, str] = {}
    try:
        words = iter(shlex.split(text))
    except ValueError as error:
        raise RequestError(f"sparkSubmitParameters cannot be split into words: {error}") from error
    for word in words:
        option, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if not has_value:
            value = next(words, "")
        if option == "--conf" and "=" in value:
            name, _, setting = value.partition("=")
            conf[name.strip()] = setting
        elif option in FILE_OPTIONS and value:
            conf[FILE_OPTIONS[option]] = value
        elif option == "--name" and value:
            conf["spark.app.name"] = value
        else:
            known = ", ".join(["--conf", "--name", *FILE_OPTIONS])
            raise RequestError(f"{word!r} in sparkSubmitParameters is not known here: only {known}, each with its value")
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


def _check_sizes(conf: Mapping[str, str]) -> None:
    for who in ("driver", "executor"):
        cores = conf.get(f"spark.{who}.cores", "4")
        if not cores.isdigit() or int(cores) not in LARGEST_MEMORY:
            raise RequestError(f"spark.{who}.cores is {cores}: a worker has 1, 2, 4, 8 or 16 vCPU")
        memory = conf.get(f"spark.{who}.memory")
        if memory is None:
            continue
        overhead = conf.get(f"spark.{who}.memoryOverhead")
        total = _gigabytes(memory, f"spark.{who}.memory")
        total += _gigabytes(overhead, f"spark.{who}.memoryOverhead") if overhead else max(total * 0.1, 0.375)
        largest = LARGEST_MEMORY[int(cores)]
        if total > largest:
            what = f"spark.{who}.memory {memory} with its overhead"
            raise RequestError(f"{what} is {total:.1f} GB: a worker of {cores} vCPU has at most {largest} GB")


def _gigabytes(text: str, name: str) -> float:
    match = re.fullmatch(r"(\d+)([mg]?)b?", text.lower())
    if match is None:
        raise RequestError(f"{name} {text} is not a size such as 4g or 512m")
    return int(match[1]) / (1 if match[2] == "g" else 1024)


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
    return replace(read_submission(spark, {}), runner=runner)
