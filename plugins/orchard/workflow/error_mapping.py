"""The product's errors as Airflow's: what a retry cannot mend fails at once, what is superseded is skipped."""

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from orchard_jobs.errors import AuditError, ConfigurationError, SupersededError


@contextmanager
def airflow_outcomes() -> Iterator[None]:
    """Translate the errors of a block; a JobError goes through, so that its task is retried."""
    try:
        yield
    except (ConfigurationError, AuditError) as error:
        raise AirflowFailException(str(error)) from error
    except SupersededError as error:
        raise AirflowSkipException(str(error)) from error
