"""Finished reports of jobs, and whether what they name is still there."""

from collections.abc import Callable
from typing import TypeVar

from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.layout import progress_folder, report_path
from orchard_jobs.errors import JobError
from orchard_jobs.storage import Warehouse

T = TypeVar("T")


def parsed(warehouse: Warehouse, path: str, text: bytes, parse: Callable[[bytes], T]) -> T:
    """Return what a text of the warehouse's `_work` folder tells; JobError when the file is damaged."""
    try:
        return parse(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JobError(
            f"{warehouse.uri_of(path)} is damaged, {type(error).__name__}: {error}: remove this file, then run again"
        ) from error


def finished_report(warehouse: Warehouse, work: str) -> JobReport | None:
    """Return the report of a finished piece of work, or None."""
    path = report_path(work)
    text = warehouse.read_if_there(path)
    return None if text is None else parsed(warehouse, path, text, JobReport.from_json)


def mark_as_begun(warehouse: Warehouse, work: str) -> None:
    """Leave a fresh mark that a run is about to do a piece of work, so that nobody cleans up what it will read.

    A manifest, a plan or a report may be old when it is taken up; a mark is always young.
    """
    warehouse.rewrite(f"{progress_folder(work)}/planned/mark.json", b"{}")


def is_sound(warehouse: Warehouse, work: str) -> bool:
    """Tell whether a piece of work can be used: it is not finished yet, or each file of its report is there unharmed.

    A finished report is final, so work whose files were lost or damaged is never done again under its name: it is planned
    under another.
    """
    report = finished_report(warehouse, work)
    files = [file for partition in report.partitions for file in partition.files] if report else []
    return all(warehouse.size(file.path) == file.size_bytes and warehouse.sha256(file.path) == file.sha256 for file in files)
