"""What the launchers send keeps the limits of AWS's own models."""

import json
from typing import Any

import pytest
from botocore.session import get_session
from support.aws_limits import find_violations
from support.repository import ROOT

GOLDEN = ROOT / "tests" / "golden"
START = {"applicationId": "00f1"} | json.loads((GOLDEN / "emr_serverless_start_job_run.json").read_text())


def violations(service: str, operation: str, request: dict[str, Any]) -> list[str]:
    model = get_session().get_service_model(service).operation_model(operation)
    return list(find_violations(model.input_shape, request, "input"))


def test_a_job_run_keeps_the_limits_of_emr_serverless() -> None:
    assert violations("emr-serverless", "StartJobRun", START) == []


@pytest.mark.parametrize("name", ["given", "new"])
def test_clusters_and_steps_keep_the_limits_of_emr(name: str) -> None:
    sent = json.loads((GOLDEN / f"emr_{name}_cluster.json").read_text())
    assert sent
    for target, body in sent:
        assert violations("emr", target.rpartition(".")[2], body) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clientToken": "x" * 65}, "less than or equal to 64"),
        ({"clientToken": "not/allowed"}, "regular expression"),
        ({"executionRoleArn": None}, "have the member executionRoleArn"),
        ({"mode": "SOMETIMES"}, "enum value set"),
    ],
)
def test_a_request_beyond_a_limit_is_found(change: dict[str, Any], words: str) -> None:
    (told,) = violations("emr-serverless", "StartJobRun", START | change)
    assert words in told
