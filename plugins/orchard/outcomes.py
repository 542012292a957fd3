"""How a use case ends: done with a value, skipped for a reason, or failed so that a retry cannot help.

A fault that a retry may fix is none of these: it is raised as a JobError. Knows no Airflow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Generic, ParamSpec, TypeAlias, TypeVar

from orchard_jobs.errors import AuditError, ConfigurationError, SupersededError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """The use case did its work; `value` is what the next one needs."""

    value: T


@dataclass(frozen=True)
class Skipped:
    """There was nothing to do, or another run did it."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """A person has to act before the use case can succeed; a retry would fail the same way."""

    error: ConfigurationError | AuditError


Outcome: TypeAlias = Done[T] | Skipped | Failed


def use_case(function: Callable[P, Outcome[T]]) -> Callable[P, Outcome[T]]:
    """Return a use case whose configuration and audit errors are `Failed`, and whose supersession is `Skipped`."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
        try:
            return function(*args, **kwargs)
        except (ConfigurationError, AuditError) as error:
            return Failed(error)
        except SupersededError as error:
            return Skipped(str(error))

    return call
