"""What the stand-ins behind moto's routes share: each request is checked against botocore's model before it is answered."""

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import moto
from botocore.session import get_session
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import camelcase_to_underscores, get_service_model

from orchard_sandbox.emr.shapes import find_violations
from orchard_sandbox.emr.submissions import RequestError
from orchard_sandbox.errors import SandboxError

MOTO_VERSION = "5.2.5"


class ApiError(ServiceException):
    """An error of an API: its code, and a message."""


class CheckedResponse(BaseResponse):
    """moto's handler of an API's requests; a method for each operation, in snake case, answers it.

    Attributes:
        model_name: botocore's name of the API.
        error_code: the API's code for a RequestError.
    """

    model_name: str
    error_code = "ValidationException"

    def __init__(self) -> None:
        super().__init__(self.model_name)
        self.automated_parameter_parsing = True

    def call_action(self) -> Any:
        """Check the request against botocore's model, and refuse an operation that is not known here."""
        name = self._get_action()
        if not name:
            return 404, {}, ""
        try:
            self._check(name)
            return super().call_action()
        except RequestError as error:
            status, headers, answer = self.serialized(ActionResult(ApiError(self.error_code, str(error))))
            return status, headers, answer

    def _check(self, name: str) -> None:
        if camelcase_to_underscores(name) not in vars(type(self)):
            raise RequestError(f"{name} is not known here")
        shape = get_service_model(self.model_name).operation_model(name).input_shape
        body = json.loads(self.body) if self.body else {}
        unknown = sorted(set(body) - set(shape.members)) if isinstance(body, dict) else ["the body"]
        errors = [f"{name} is no parameter of this operation" for name in unknown]
        errors += find_violations(shape, self.given, "input")
        if errors:
            raise RequestError(f"{len(errors)} validation error{'s' * (len(errors) > 1)} detected: {'; '.join(errors)}")

    @property
    def given(self) -> dict[str, Any]:
        """The request's members that were sent; moto's parser gives an empty list for a list that was not."""
        return {**self.uri_match, **{name: value for name, value in dict(self.params).items() if value not in (None, [])}}


def check_moto(paths: Iterable[str], expected: set[str], module: str) -> None:
    """Raise SandboxError when moto is another version, or has other routes than those that the stand-in replaces."""
    if moto.__version__ != MOTO_VERSION or set(paths) != expected:
        raise SandboxError(
            f"moto {moto.__version__} has the routes {sorted(paths)} in {module}, but the stand-in was made for moto "
            f"{MOTO_VERSION}: install that one, or check {module} and the names that orchard_sandbox.emr imports"
        )


def refusal(status: int) -> dict[str, str]:
    """Return the body of an error that was ordered."""
    code = "ThrottlingException" if status == 429 else "InternalServerException"
    return {"__type": code, "message": "a fault that was ordered"}


def operation_of(environ: dict[str, Any]) -> str | None:
    """Return the name of the AWS operation that a request calls; None when it calls S3 or nothing that is known here."""
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
