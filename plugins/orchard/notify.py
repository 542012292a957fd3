"""The notifier under the class path that ORCHARD_NOTIFIER names by default; `workflow.notify` defines it."""

from orchard.workflow.notify import LogNotifier

__all__ = ["LogNotifier"]
