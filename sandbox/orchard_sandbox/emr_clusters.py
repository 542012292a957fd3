"""A cluster of EMR and its steps: what was asked for, where they stand, and how the API shows them."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from orchard_sandbox.aws_responses import ApiError
from orchard_sandbox.landing import ACCOUNT
from orchard_sandbox.spark_submission import Submission, UnknownRequestError, read_submission

OVER = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")
GONE = ("TERMINATED", "TERMINATED_WITH_ERRORS")


def invalid(message: str) -> ApiError:
    """Return the API's InvalidRequestException."""
    return ApiError("InvalidRequestException", message)


@dataclass
class Step:
    """One step: what was asked for, and where it stands."""

    id: str
    request: dict[str, Any]
    created: float
    state: str = "PENDING"
    started: float = 0.0
    ended: float = 0.0
    reason: str = ""
    is_cancelled: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the step has come to its end."""
        return self.state in OVER

    def shown(self) -> dict[str, Any]:
        """Return the step as the API shows it."""
        jar = self.request["HadoopJarStep"]
        timeline = {"CreationDateTime": self.created, "StartDateTime": self.started, "EndDateTime": self.ended}
        status: dict[str, Any] = {
            "State": self.state,
            "StateChangeReason": {},
            "Timeline": {name: datetime.fromtimestamp(moment, UTC) for name, moment in timeline.items() if moment},
        }
        if self.state == "FAILED":
            status["FailureDetails"] = {"Reason": "Unknown Error.", "Message": self.reason}
        return {
            "Id": self.id,
            "Name": self.request["Name"],
            "ActionOnFailure": self.request.get("ActionOnFailure", "CONTINUE"),
            "Config": {"Jar": jar["Jar"], "Args": jar.get("Args", []), "Properties": {}},
            "Status": status,
        }


@dataclass
class Cluster:
    """One cluster: what was asked for, and where it and its steps stand."""

    id: str
    request: dict[str, Any]
    created: float
    state: str = "STARTING"
    ended: float = 0.0
    reason: str = ""
    steps: list[Step] = field(default_factory=list)
    is_ending: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the cluster has come to its end."""
        return self.state in GONE

    def summary(self, region: str) -> dict[str, Any]:
        """Return the cluster as a listing shows it."""
        timeline = {"CreationDateTime": self.created, "EndDateTime": self.ended}
        status = {
            "State": self.state,
            "StateChangeReason": {"Message": self.reason} if self.reason else {},
            "Timeline": {name: datetime.fromtimestamp(moment, UTC) for name, moment in timeline.items() if moment},
        }
        arn = f"arn:aws:elasticmapreduce:{region}:{ACCOUNT}:cluster/{self.id}"
        return {"Id": self.id, "Name": self.request["Name"], "Status": status, "NormalizedInstanceHours": 0, "ClusterArn": arn}

    def shown(self, region: str) -> dict[str, Any]:
        """Return the cluster as the API shows it."""
        asked, instances = self.request, self.request["Instances"]
        kept = ("LogUri", "ReleaseLabel", "ServiceRole", "VisibleToAllUsers", "Configurations", "SecurityConfiguration")
        return {
            **self.summary(region),
            **{name: asked[name] for name in kept if name in asked},
            "Applications": asked.get("Applications", []),
            "Tags": asked.get("Tags", []),
            "AutoTerminate": not instances.get("KeepJobFlowAliveWhenNoSteps", False),
            "TerminationProtected": instances.get("TerminationProtected", False),
            "StepConcurrencyLevel": 1,
        }


def submission_of(request: Mapping[str, Any]) -> Submission:
    """Return what a step submits: `spark-submit`, its options, the script and its arguments, by command-runner.jar.

    Before it may stand `bash -c SCRIPT ARGUMENT`, which is to run it.
    """
    jar = request["HadoopJarStep"]
    arguments = list(jar.get("Args") or [])
    runner = tuple(arguments[:4]) if arguments[:2] == ["bash", "-c"] else ()
    arguments = arguments[len(runner) :]
    if jar["Jar"] != "command-runner.jar" or arguments[:1] != ["spark-submit"]:
        raise invalid(f"the step {request['Name']} is none that this stand-in runs: command-runner.jar with spark-submit")
    options, rest = [], arguments[1:]
    while rest and rest[0].startswith("--"):
        options += rest[:2]
        rest = rest[2:]
    if not rest:
        raise invalid(f"the step {request['Name']} names no script")
    pairs = list(zip(options[::2], options[1::2], strict=False))
    if ("--deploy-mode", "client") not in pairs:
        raise invalid(
            f"the step {request['Name']} is not submitted with --deploy-mode client: the driver would be a container of YARN, "
            "which a cancelled step leaves running, and whose log lies elsewhere; this stand-in has neither"
        )
    kept = [word for name, value in pairs if name != "--deploy-mode" for word in (name, value)]
    spark = {"entryPoint": rest[0], "entryPointArguments": rest[1:], "sparkSubmitParameters": shlex.join(kept)}
    try:
        return replace(read_submission(spark, {}), runner=runner)
    except UnknownRequestError as error:
        raise invalid(str(error)) from error
