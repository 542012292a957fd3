"""Findings become a verdict, and a failed verdict an error that a person can act on."""

import pytest
from orchard_jobs.audit.verdict import Findings
from orchard_jobs.errors import AuditError


def findings() -> Findings:
    found = Findings()
    found.register_checks({"finite": "no value is NaN", "keys": "none is lost"})
    return found


def test_checks_without_a_fault_pass() -> None:
    verdict = findings().verdict()
    assert verdict.has_passed
    assert verdict.passed == ("finite", "keys")
    verdict.raise_if_failed()


def test_an_error_lists_check_file_count_and_five_examples() -> None:
    found = findings()
    found.extend("keys", "a.parquet", (f"row {i} is lost" for i in range(7)))
    found.add("keys", "b.parquet", "row 8 is lost")
    found.warn("look here")
    verdict = found.verdict()
    assert verdict.passed == ("finite",)
    with pytest.raises(AuditError) as error:
        verdict.raise_if_failed()
    head, *lines = str(error.value).splitlines()
    assert head.startswith("1 of 2 checks failed, nothing is published")
    assert lines[0] == "keys: failed for 8: expected that none is lost; in a.parquet, b.parquet"
    assert lines[1:] == [*(f"    row {i} is lost" for i in range(5)), "warning: look here"]


def test_a_fault_of_a_check_that_was_not_taken_up_is_not_lost() -> None:
    with pytest.raises(KeyError, match="reason"):
        findings().add("reason", "a.parquet", "x")
