"""What a failed task calls: a log line by default, any Airflow notifier by setting."""

import importlib
import logging
from typing import Any

from airflow.sdk import BaseNotifier
from orchard_jobs.errors import ConfigurationError

from orchard.settings import Settings

log = logging.getLogger(__name__)


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

    Raises:
        ConfigurationError: the class cannot be imported, is no notifier, or refuses its arguments.
    """
    module, _, name = settings.runs.notifier.rpartition(".")
    try:
        notifier = getattr(importlib.import_module(module), name)(**settings.runs.notifier_arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"ORCHARD_NOTIFIER={settings.runs.notifier!r}: {error}; name a class as module.Class") from error
    if not isinstance(notifier, BaseNotifier):
        raise ConfigurationError(f"ORCHARD_NOTIFIER={settings.runs.notifier!r} is not an Airflow notifier (BaseNotifier)")
    return notifier
