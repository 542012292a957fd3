"""The deployed package is held against its digests: what is not what was deployed is refused, what cannot be read is told."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from orchard.deployment.deployed_package import check_package
from orchard.deployment.package import ENTRY, MANIFEST, WHEEL, ZIP, build_package
from orchard_jobs.errors import ConfigurationError
from support.databricks_files import TOKEN, VOLUME, serve_volume

USED = (ZIP, ENTRY)
Files = dict[str, bytes]
Damage = Callable[[Files], None]


def lost_file(files: Files) -> None:
    del files[ZIP]


def other_file(files: Files) -> None:
    files[ZIP] = files[ZIP][::-1]


def lost_manifest(files: Files) -> None:
    del files[MANIFEST]


def cut_manifest(files: Files) -> None:
    files[MANIFEST] = files[MANIFEST][:100]


def manifest_without_files(files: Files) -> None:
    files[MANIFEST] = b"[]"


def other_manifest(files: Files) -> None:
    found = json.loads(files[MANIFEST])
    found["files"][ZIP]["sha256"] = "0" * 64
    files[MANIFEST] = json.dumps(found).encode()


DAMAGES: dict[Damage, str] = {
    lost_file: f"{ZIP} is not there: run `orchard deploy`, and set the ORCHARD_JOBS_URI that it prints",
    other_file: f"{ZIP} does not match its {MANIFEST}",
    lost_manifest: f"{MANIFEST} is not there",
    cut_manifest: f"{MANIFEST} is no manifest",
    manifest_without_files: f"{MANIFEST} is no manifest",
    other_manifest: f"{MANIFEST} belongs to another package than the one that its folder is named after",
}


def put(s3: Any, files: Files) -> str:
    name = f"{build_package().name}"
    for file, content in files.items():
        s3.put_object(Bucket="cluster", Key=f"{name}/{file}", Body=content)
    return f"s3://cluster/{name}"


def test_what_was_deployed_is_accepted(s3: Any, caplog: pytest.LogCaptureFixture) -> None:
    check_package(put(s3, build_package().files), None, USED)
    assert "was not compared" not in caplog.text


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_was_not_deployed_is_refused(s3: Any, damage: Damage) -> None:
    files = dict(build_package().files)
    damage(files)
    uri = put(s3, files)
    with pytest.raises(ConfigurationError, match=f"^{uri}/{DAMAGES[damage]}"):
        check_package(uri, None, USED)


def test_what_no_job_runs_is_not_read(s3: Any) -> None:
    check_package(put(s3, {name: content for name, content in build_package().files.items() if name != WHEEL}), None, USED)


@pytest.mark.parametrize("uri", ["s3://absent/jobs", f"{VOLUME}/jobs"])
def test_what_cannot_be_read_is_told(s3: Any, caplog: pytest.LogCaptureFixture, uri: str) -> None:
    with caplog.at_level(logging.WARNING):
        check_package(uri, None, USED)
    assert "the jobs' package was not compared with its digests: " in caplog.text


@pytest.mark.parametrize("folder", [VOLUME, "/Workspace/Shared"])
def test_databricks_is_read_too(folder: str, no_cloud: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    package = build_package()
    with serve_volume(tmp_path) as server:
        monkeypatch.setenv("DATABRICKS_HOST", server.address)
        place = server.volumes if folder == VOLUME else server.workspace
        for name in (MANIFEST, WHEEL):
            path = place.path(f"{folder}/{package.name}/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(package.files[name])
        check_package(f"{folder}/{package.name}", None, (WHEEL,))
        path.write_bytes(b"another")
        with pytest.raises(ConfigurationError, match=f"{WHEEL} does not match its manifest"):
            check_package(f"{folder}/{package.name}", None, (WHEEL,))
