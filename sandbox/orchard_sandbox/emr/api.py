"""What the stand-ins behind moto's routes share: what they do not know of a request is refused, never ignored."""

import json
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import camelcase_to_underscores, get_service_model

from orchard_sandbox.emr.submissions import RequestError


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
        """Refuse an operation or a parameter that is not known here; botocore's clients have checked all else."""
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
        unknown = sorted(set(json.loads(self.body) if self.body else {}) - set(shape.members))
        if unknown:
            raise RequestError(f"{', '.join(unknown)}: not a parameter of {name}")

    @property
    def given(self) -> dict[str, Any]:
        """The request's members that were sent; moto's parser gives an empty list for a list that was not."""
        return {**self.uri_match, **{name: value for name, value in dict(self.params).items() if value not in (None, [])}}
