"""The AWS stand-in with faults that a test orders; run as a program."""

import os
import re
from functools import cache
from wsgiref.types import WSGIEnvironment

from botocore.session import get_session
from orchard_sandbox import aws_stand_in

from support.steered_stand_in import Steering


def _refusal(status: int) -> dict[str, str]:
    code = "ThrottlingException" if status == 429 else "InternalServerException"
    return {"__type": code, "message": "a fault that was ordered"}


def _operation_of(environ: WSGIEnvironment) -> str | None:
    """Return the AWS operation that a request calls; None for S3 and for everything unknown."""
    target: str = environ.get("HTTP_X_AMZ_TARGET", "")
    if target:
        return target.rpartition(".")[2]
    if "/emr-serverless/" not in environ.get("HTTP_AUTHORIZATION", ""):
        return None
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    return next((name for verb, pattern, name in _routes() if verb == method and pattern.fullmatch(path)), None)


@cache
def _routes() -> list[tuple[str, re.Pattern[str], str]]:
    model = get_session().get_service_model("emr-serverless")
    routes = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        member = ".+" if "Arn" in http["requestUri"] else "[^/]+"  # an ARN in a path holds slashes
        routes.append((http["method"], re.compile(re.sub(r"\{\w+\}", member, http["requestUri"])), name))
    return routes


if __name__ == "__main__":
    minute_seconds = float(os.environ.get("ORCHARD_TEST_MINUTE_SECONDS", "60"))
    Steering(_operation_of, _refusal, "java.lang.OutOfMemoryError: Java heap space", minute_seconds).install(aws_stand_in)
    aws_stand_in.main()
