"""What a failed task calls: a log line by default, any Airflow notifier by setting."""

import importlib
import inspect
from typing import Any

from airflow.sdk import BaseNotifier
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.escaping import escaping_logger

from orchard.settings import Settings

log = escaping_logger(__name__)


class LogNotifier(BaseNotifier):
    """Write one line on a failed task: which, of which batch, and the exception."""

    def notify(self, context: Any) -> None:
        """Log the failure of the context's task."""
        task = context["task_instance"]
        log.error(
            "task failed: dag=%s task=%s batch_id=%s run_id=%s try=%s error=%s",
            task.dag_id,
            task.task_id,
            getattr(context.get("dag_run"), "partition_key", None),
            task.run_id,
            task.try_number,
            context.get("exception"),
        )


def failure_notifier(settings: Settings) -> BaseNotifier:
    """Return the notifier that the settings name.

    The arguments may be secrets, so an error names them and holds no value.

    Raises:
        ConfigurationError: the class cannot be imported, is no notifier, or refuses its arguments.
    """
    setting = f"ORCHARD_NOTIFIER={settings.runs.notifier!r}"
    module, _, name = settings.runs.notifier.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{setting}: {error}; name a class as module.Class") from error
    if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
        raise ConfigurationError(f"{setting} is not an Airflow notifier (BaseNotifier)")
    return _made(kind, settings.runs.notifier_arguments, setting)


def _made(kind: type[BaseNotifier], arguments: dict[str, Any], setting: str) -> BaseNotifier:
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:  # which quotes names alone
        raise ConfigurationError(f"{setting}: {error}; correct ORCHARD_NOTIFIER_ARGUMENTS") from error
    try:
        return kind(**arguments)
    except Exception as error:
        why = f"{type(error).__name__} with the arguments {', '.join(arguments) or 'none'}, whose values are not shown"
    raise ConfigurationError(f"{setting}: {why}; correct ORCHARD_NOTIFIER_ARGUMENTS")
