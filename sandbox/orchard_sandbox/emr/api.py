"""What the stand-ins behind moto's routes share: each request is checked against botocore's model before it is answered."""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import moto
from botocore.session import get_session
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import camelcase_to_underscores, get_service_model

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
        errors = [f"{name} is not a parameter of this operation" for name in unknown]
        errors += find_violations(shape, self.given, "input")
        if errors:
            raise RequestError(f"{len(errors)} validation error{'s' * (len(errors) > 1)} detected: {'; '.join(errors)}")

    @property
    def given(self) -> dict[str, Any]:
        """The request's members that were sent; moto's parser gives an empty list for a list that was not."""
        return {**self.uri_match, **{name: value for name, value in dict(self.params).items() if value not in (None, [])}}


# botocore checks types and required members before it sends; lengths, ranges, patterns and enums are left to the service.
def find_violations(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Yield a message, in the words of AWS, for each constraint of a botocore Shape that a parsed value fails."""
    if value is None:
        return
    for constraint in _failed(shape, value):
        yield f"Value {value!r:.200} at '{path}' failed to satisfy constraint: Member must {constraint}"
    for name, member, item in _members(shape, value):
        yield from find_violations(member, item, f"{path}.{name}")


def _members(shape: Any, value: Any) -> Iterator[tuple[str, Any, Any]]:
    if shape.type_name == "structure":
        yield from ((name, member, value.get(name)) for name, member in shape.members.items())
    elif shape.type_name == "list":
        yield from ((str(number), shape.member, item) for number, item in enumerate(value, 1))
    elif shape.type_name == "map":
        yield from ((f"{key}.key", shape.key, key) for key in value)
        yield from ((key, shape.value, item) for key, item in value.items())


def _failed(shape: Any, value: Any) -> Iterator[str]:
    limits = shape.metadata
    for name in shape.required_members if shape.type_name == "structure" else ():
        if value.get(name) is None:
            yield f"have the member {name}"
    is_number = shape.type_name in ("integer", "long", "float", "double")
    if is_number or shape.type_name in ("string", "list", "map"):
        size, what = (value, "value") if is_number else (len(value), "length")
        if size < limits.get("min", size):
            yield f"have {what} greater than or equal to {limits['min']}"
        if size > limits.get("max", size):
            yield f"have {what} less than or equal to {limits['max']}"
    if shape.type_name != "string":
        return
    if getattr(shape, "enum", None) and value not in shape.enum:
        yield f"satisfy enum value set: [{', '.join(shape.enum)}]"
    # Java writes what lies above U+FFFF as a pair of surrogates.
    pattern = limits.get("pattern", "").replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    if pattern and not re.fullmatch(pattern, value, re.DOTALL):
        yield f"satisfy regular expression pattern: {pattern}"


def check_moto(paths: Iterable[str], expected: set[str], module: str) -> None:
    """Raise SandboxError unless moto has the version and the routes that the stand-in was made for."""
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
