"""AWS without a network: what botocore would send is recorded, and answered by the test."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.httpsession import URLLib3Session
from botocore.model import StringShape
from botocore.session import get_session
from orchard.launchers.resumable_job import ResumableJob

Answer = Callable[[str, dict[str, Any]], dict[str, Any]]
TOKEN = "t" * 64


class _Raw(io.BytesIO):
    def stream(self, **_: Any) -> Any:
        yield self.read()


def record(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Return the list of the requests: (operation, or method and path, body); each is answered by a function of both."""
    sent: list[tuple[str, dict[str, Any]]] = []

    def send(self: Any, request: Any) -> AWSResponse:
        target = request.headers.get("X-Amz-Target")
        name = target.decode() if isinstance(target, bytes) else target
        path = request.url.split("amazonaws.com")[1]
        body = json.loads(request.body or b"{}")
        sent.append((name or f"{request.method} {path}", body))
        told = json.dumps(answer(*sent[-1])).encode()
        return AWSResponse(request.url, 200, HTTPHeaders(), _Raw(told))

    monkeypatch.setattr(URLLib3Session, "send", send)
    for name, value in (("ACCESS_KEY_ID", "any"), ("SECRET_ACCESS_KEY", "thing"), ("DEFAULT_REGION", "eu-west-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", '{"conn_type": "aws"}')
    return sent


def enum_of(service: str, shape: str) -> list[str]:
    """Return the values that a service's model knows of a string."""
    found = get_session().get_service_model(service).shape_for(shape)
    assert isinstance(found, StringShape)
    return list(found.enum)


def without_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an operator submit under a fixed token, whatever its warehouse."""
    monkeypatch.setattr(ResumableJob, "begin", lambda self, context: TOKEN)
    monkeypatch.setattr(ResumableJob, "claim", lambda self, context: True)
    monkeypatch.setattr(ResumableJob, "record_start", lambda self, context, job: None)
