"""What the stand-ins behind moto's routes share: each request is checked against botocore's model before it is answered."""

import json
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import camelcase_to_underscores, get_service_model

from orchard_sandbox.aws_shapes import find_violations

MOTO_VERSION = "5.2.5"


class ApiError(ServiceException):
    """An error of an API: its code, and a message."""


class CheckedResponse(BaseResponse):
    """moto's handler of an API's requests; a method for each operation, in snake case, answers it.

    Attributes:
        model_name: botocore's name of the API.
        error_code: of a request that is refused.
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
            if camelcase_to_underscores(name) not in vars(type(self)):
                raise self.refusal(f"{name} is not known here")
            shape = get_service_model(self.model_name).operation_model(name).input_shape
            body = json.loads(self.body) if self.body else {}
            unknown = sorted(set(body) - set(shape.members)) if isinstance(body, dict) else ["the body"]
            errors = [f"{name} is no parameter of this operation" for name in unknown]
            errors += find_violations(shape, self._given(), "input")
            if errors:
                raise self.refusal(f"{len(errors)} validation error{'s' * (len(errors) > 1)} detected: {'; '.join(errors)}")
        except ServiceException as error:
            status, headers, answer = self.serialized(ActionResult(error))
            return status, headers, answer
        return super().call_action()

    def refusal(self, message: str) -> ServiceException:
        """Return the API's error for a wrong request."""
        return ApiError(self.error_code, message)

    def _given(self) -> dict[str, Any]:
        # moto's parser gives an empty list for a list that was not sent.
        return {**self.uri_match, **{name: value for name, value in dict(self.params).items() if value not in (None, [])}}
