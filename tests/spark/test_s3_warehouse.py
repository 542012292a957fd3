"""A warehouse in S3: the jobs as a launcher submits them. Spark has no S3 connector here, and needs none."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from orchard_jobs.audit.batch_checks import AuditPolicy, audit_batch
from orchard_jobs.contract.backbones import Backbone
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobReport
from orchard_jobs.contract.layout import backbone_path, report_path
from orchard_jobs.contract.manifest import Action, ManifestHead
from orchard_jobs.storage import Warehouse
from PIL import Image
from support.local_manifests import entry_of, files_of, freeze
from support.submitted_job import featurize_command, own_environment


@pytest.fixture
def lake(warehouse: Warehouse, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """A warehouse in a moto server of its own, with the exported backbone in it."""
    with moto_server() as address:
        values = {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "any", "SECRET_ACCESS_KEY": "thing", "DEFAULT_REGION": "us-east-1"}
        for name, value in values.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        config = Config(retries={"total_max_attempts": 10, "mode": "standard"})
        boto3.client("s3", config=config).create_bucket(Bucket="lake")
        lake = Warehouse.at("s3://lake/warehouse")
        lake.create(backbone_path(backbone.id), warehouse.read(backbone_path(backbone.id)))
        yield lake


@contextmanager
def moto_server() -> Iterator[str]:
    """Run a moto server for the block; its address is known before it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    python = Path(sys.prefix).with_name("jobs") / "bin" / "python"  # the environment of another Spark has no moto
    command = [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def featurize(warehouse: Warehouse, head: ManifestHead) -> JobReport:
    subprocess.run(featurize_command(warehouse, head.digest), env=own_environment(), check=True, timeout=300)
    return JobReport.from_json(warehouse.read(report_path(work_digest(head.digest, head.backbone.id, "featurize"))))


def draw_images(folder: Path) -> list[Path]:
    """Draw six images, and a file that is none."""
    for number in range(6):
        Image.new("RGB", (40, 30), (40 * number, 90, 200)).save(folder / f"{number}.png")
    (folder / "broken.png").write_text("no image")
    return sorted(folder.iterdir())


def freeze_with_late(lake: Warehouse, backbone: Backbone, paths: list[Path], first: JobReport, late: Path) -> ManifestHead:
    """Freeze the batch's next version: the rows of the first are kept, and one image is new."""
    Image.new("RGB", (40, 30), (1, 2, 3)).save(late)
    actions: dict[Path, Action] = {path: "keep_quarantined" if path.stem == "broken" else "keep" for path in paths}
    entries = [replace(entry_of(path, group=""), action=action) for path, action in actions.items()]
    good, bad = files_of(first, "features"), files_of(first, "quarantine")
    return freeze(lake, backbone, [*entries, entry_of(late)], number=2, features_files=good, quarantine_files=bad)


@pytest.mark.skipif("SPARK_REMOTE" in os.environ, reason="it starts Sparks of its own, the same as without")
def test_a_batch_is_computed_and_then_kept(lake: Warehouse, backbone: Backbone, tmp_path: Path) -> None:
    assert shutil.which("spark-submit", path=str(Path(sys.executable).parent))
    paths = draw_images(tmp_path)
    head = freeze(lake, backbone, [entry_of(path) for path in paths])
    first = featurize(lake, head)
    policy = AuditPolicy(1.0)
    audit_batch(lake, head, first, None, policy).raise_if_failed()
    assert (first.counts["featurized"], first.counts["quarantined"]) == (6, 1)

    head = freeze_with_late(lake, backbone, paths, first, tmp_path / "late.png")
    second = featurize(lake, head)
    audit_batch(lake, head, second, None, policy).raise_if_failed()
    assert (second.counts["network_runs"], second.counts["reused"], second.counts["quarantined"]) == (1, 6, 1)
