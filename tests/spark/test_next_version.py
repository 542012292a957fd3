"""The next version of a batch: rows are kept, reused and computed, each as the manifest says."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.manifest import Action, Entry, ManifestHead
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from PIL import Image
from support.featurized import run_featurize
from support.local_manifests import entry_of, files_of, freeze, rows_of

MOVED = "file:///elsewhere/x.jpg"


@dataclass(frozen=True)
class Next:
    """The second version of the batch: a row of it is missing, one moved, and one image is new."""

    head: ManifestHead
    report: JobReport
    rows: dict[str, dict[str, Any]]
    source: dict[str, Any]
    late: str


def kept(path: Path, quarantined: set[str]) -> Entry:
    entry = entry_of(path, group="")
    action: Action = "keep_quarantined" if entry.image_uri in quarantined else "keep"
    return replace(entry, action=action)


@pytest.fixture(scope="module")
def second(
    workers: Workers, warehouse: Warehouse, backbone: Backbone, batch: list[Path], first: tuple[ManifestHead, JobReport]
) -> Next:
    features, quarantine = (files_of(first[1], table) for table in ("features", "quarantine"))
    published = {row["image_uri"]: row for row in rows_of(warehouse, first[1], "features")}
    entries = [kept(path, {row["image_uri"] for row in rows_of(warehouse, first[1], "quarantine")}) for path in batch]
    gone = next(index for index, entry in enumerate(entries) if entry.action == "keep")
    source = published[entries[gone].image_uri]
    moved = replace(entries[gone], image_uri=MOVED, label="moved", action="reuse", content_sha256=source["content_sha256"])
    entries[gone] = replace(entries[gone], is_missing=True)
    late = batch[0].parent / "late.png"
    Image.new("RGB", (30, 20), (200, 30, 40)).save(late)
    files = {"features_files": features, "vector_files": features, "quarantine_files": quarantine}
    head = freeze(warehouse, backbone, [*entries, moved, entry_of(late)], number=2, **files)
    report = run_featurize(workers, warehouse, head)
    late.unlink()
    rows = {row["image_uri"]: row for row in rows_of(warehouse, report, "features")}
    return Next(head, report, rows, source, f"file://{late}")


def test_only_the_new_image_is_computed(second: Next, batch: list[Path], first: tuple[ManifestHead, JobReport]) -> None:
    listed, quarantined = len(batch) - 1 + 2, first[1].counts["quarantined"]
    assert second.report.counts == {
        "listed": listed,
        "featurized": 1,
        "network_runs": 1,
        "missing": 1,
        "reused": listed - 1 - quarantined,
        "quarantined": quarantined,
    }


def test_a_moved_image_takes_the_vector_of_its_content(second: Next) -> None:
    assert second.rows[MOVED]["features"] == second.source["features"]
    assert second.rows[MOVED]["label"] == "moved"


def test_each_row_says_which_version_computed_it(second: Next, first: tuple[ManifestHead, JobReport]) -> None:
    assert {row["manifest_digest"] for row in second.rows.values()} == {second.head.digest}
    assert second.rows[second.late]["computed_in"] == second.head.digest
    assert second.rows[second.source["image_uri"]]["computed_in"] == first[0].digest


def test_the_audit_passes_the_next_version(warehouse: Warehouse, second: Next) -> None:
    audit_batch(warehouse, second.head, second.report, None, AuditPolicy(max_quarantined_share=1.0)).raise_if_failed()
