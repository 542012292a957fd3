"""A use case's outcome as Airflow's: a value is returned, what a retry cannot fix fails at once, the rest is skipped."""

from typing import TypeVar

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from orchard.outcomes import Failed, Outcome, Skipped

T = TypeVar("T")


def airflow_value(outcome: Outcome[T]) -> T:
    """Return a finished use case's value.

    Raises:
        AirflowSkipException: the use case was skipped.
        AirflowFailException: it failed, and a retry cannot help; Airflow does not retry the task.
    """
    if isinstance(outcome, Skipped):
        raise AirflowSkipException(outcome.reason)
    if isinstance(outcome, Failed):
        raise AirflowFailException(str(outcome.error)) from outcome.error
    return outcome.value
