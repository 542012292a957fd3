"""Versions that a run has begun and not published: which manifests they are, how far each came, and what stopped it.

Reads only. A run that failed before it wrote anything is known to Airflow alone.
"""

import json
from collections.abc import Collection, Iterator

from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.audit.verdict import Failure
from orchard_jobs.contract.layout import MANIFESTS, FaultPath, ManifestPath, parse
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.storage import Warehouse

from orchard.batch.manifests import read_head
from orchard.launchers.attempts import Attempts
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import finished_report, job_digests


def begun_versions(tables: Tables, versions: BatchVersions, published: Collection[str]) -> Iterator[ManifestHead]:
    """Yield the manifests that can still be published, of each batch the newest last; all manifests are listed for it.

    Args:
        tables: the tables.
        versions: the versions that the tables hold.
        published: the digests of the manifests that have a `runs` row.
    """
    found = ((parse(file.path), file) for file in tables.warehouse.files(MANIFESTS))
    heads = {path.digest: file for path, file in found if isinstance(path, ManifestPath) and path.is_head}
    for digest in sorted(set(heads).difference(published), key=lambda digest: heads[digest].modified_at):
        head = read_head(tables.warehouse, digest)
        if can_be_published(versions, head):
            yield head


def can_be_published(versions: BatchVersions, head: ManifestHead) -> bool:
    """Tell whether a manifest without a `runs` row is of the backbone, and newer than all versions or the half-way one."""
    if head.backbone.id != versions.backbone:
        return False
    return head.number > versions.highest_number(head.batch_id) or versions.is_half_way(head.batch_id, head.digest)


def begun_state(warehouse: Warehouse, settings: Settings, head: ManifestHead) -> tuple[str, str]:
    """Return the state of a begun version (`planned`, `staged` or `refused`), and why in words. A staged one is audited."""
    featurize, reduce = job_digests(head)
    featurized = finished_report(warehouse, featurize)
    computed = sum(count for action, count in head.actions.items() if action in ("compute", "reuse"))
    if featurized is None:
        pending = f"version {head.number} with {computed} new of {head.listed} images has no finished featurize job"
        return "planned", pending + _last_end(warehouse, featurize)
    reduced = finished_report(warehouse, reduce)
    if head.models and reduced is None:
        pending = f"version {head.number} is featurized, and has no finished reduce job"
        return "planned", pending + _last_end(warehouse, reduce)
    policy = AuditPolicy(settings.images.max_quarantined_share)
    verdict = audit_batch(warehouse, head, featurized, reduced, policy)
    if verdict.has_passed:
        return "staged", f"version {head.number} passes its audit and is not published"
    return "refused", "; ".join(_told_failure(failure) for failure in verdict.failures)


def _told_failure(failure: Failure) -> str:
    """Return a failed check and its first example, on one line."""
    return ": ".join(line.strip() for line in failure.to_text().splitlines()[:2])


def _last_end(warehouse: Warehouse, work: str) -> str:
    """Return how the last job at a piece of work ended: in its vendor's words, and in its own."""
    end, text = Attempts(warehouse, work).last_end, warehouse.read_if_there(str(FaultPath(work)))
    return (f"; its {end}" if end else "") + (_told_fault(text) if text else "")


def _told_fault(text: bytes) -> str:
    try:
        fault = json.loads(text)
        return f"; it failed at {fault['at']}: {fault['error']}"
    except (ValueError, TypeError, KeyError):
        return "; it failed, and its error record is unreadable"
