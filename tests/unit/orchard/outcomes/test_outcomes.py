"""A use case's end: which errors become outcomes, and which stay errors."""

import pytest
from orchard.outcomes import Done, Failed, Outcome, Skipped, use_case
from orchard_jobs.errors import AuditError, ConfigurationError, DamagedFileError, JobError, OrchardError, SupersededError


@use_case
def halve(number: int, error: OrchardError | None = None) -> Outcome[int]:
    """Return half of a number, or end with an error."""
    if error is not None:
        raise error
    return Done(number // 2)


def test_a_use_case_that_ends_well_is_done() -> None:
    assert halve(6) == Done(3)


@pytest.mark.parametrize("error", [ConfigurationError("no bucket"), AuditError("rows are missing")])
def test_what_a_person_has_to_mend_is_a_failure(error: ConfigurationError | AuditError) -> None:
    assert halve(6, error) == Failed(error)


def test_a_superseded_use_case_is_skipped_for_its_reason() -> None:
    assert halve(6, SupersededError("a later run has published")) == Skipped("a later run has published")


@pytest.mark.parametrize("error", [JobError("no answer"), DamagedFileError("file:///a.parquet", "was cut")])
def test_what_a_retry_may_mend_is_raised(error: JobError) -> None:
    with pytest.raises(type(error)):
        halve(6, error)


def test_a_use_case_keeps_its_name_and_its_documentation() -> None:
    assert (halve.__name__, halve.__doc__) == ("halve", "Return half of a number, or end with an error.")
