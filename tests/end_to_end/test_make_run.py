"""The whole product as a user runs it: real Airflow, real Spark, real images; the tables are read by polars.

The tests stand in the order of one story on one stack, since a stack costs half a minute.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import requests
from orchard_sandbox.stack.published import pending_work
from orchard_sandbox.stack.samples import image_bytes
from orchard_sandbox.stack.stack_paths import Layout
from orchard_sandbox.stack.stack_state import read_state
from playwright.sync_api import expect
from support.generated_history import GeneratedHistory, some_contents, start_backfill
from support.repository import SHARED
from support.stack import Stack, bare_client, copy, run_printed_program, wait_for_silence, write
from support.ui import browsing

pytestmark = pytest.mark.end_to_end

# Milliseconds that a page may take on a busy machine.
_PATIENCE = 60_000

# One history in `make test`, more and longer ones in `make soak`.
HISTORIES, STEPS = (int(os.environ.get(name, few)) for name, few in (("SOAK_REAL_HISTORIES", 1), ("SOAK_REAL_STEPS", 5)))
BAD_FIRST, SECOND, FAILING, NONE_GOOD = "2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"


def fill(images: Path) -> dict[str, str]:
    """Lay out two batches of at least 120 images, odd and broken ones among them; return how each of those decodes."""
    fruits, problems = SHARED / "fruits360", SHARED / "problem_files"
    if fruits.is_dir():
        for batch, day, count in ((BAD_FIRST, "2017-12-31", 80), (SECOND, "2018-01-19", 60)):
            for path in sorted((fruits / day).rglob("*.jpg"))[::3][:count]:
                copy(path, images / batch / path.parent.name / path.name)
    else:
        for batch, first in ((BAD_FIRST, 0), (SECOND, 100)):
            for number in range(first, first + 70):
                label = ("Apple Red", "Banana", "Kiwi")[number % 3]
                write(images / batch / label / f"{number}_100.jpg", image_bytes(label, number))
    odd = {"broken.jpg": "broken", "empty.jpg": "broken", "cmyk.jpg": "ok"}
    whole = image_bytes("Kiwi", 7)
    write(images / BAD_FIRST / "odd" / "broken.jpg", whole[: len(whole) // 2])
    write(images / BAD_FIRST / "odd" / "empty.jpg", b"")
    write(images / BAD_FIRST / "odd" / "cmyk.jpg", image_bytes("Kiwi", 8, mode="CMYK"))
    write(images / SECOND / "odd" / "again # 100%.jpg", image_bytes("Kiwi", 8, mode="CMYK"))
    if problems.is_dir():
        lines = (SHARED / "manifest.csv").read_text().splitlines()
        names = lines[0].split(",")
        for line in lines[1:]:
            row = dict(zip(names, line.split(","), strict=False))
            if row["path"].startswith("problem_files/"):
                path = SHARED / row["path"]
                copy(path, images / BAD_FIRST / path.parent.name / path.name)
                odd[path.name] = "ok" if row["decode"] == "ok" else "broken"
    for number in range(15):
        write(images / FAILING / "text" / f"{number}.jpg", f"no image {number}".encode())
        write(images / NONE_GOOD / "text" / f"{number}.jpg", f"no image {number} either".encode())
    write(images / FAILING / "Kiwi" / "good.jpg", image_bytes("Kiwi", 9))
    return odd


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return fill(tmp_path_factory.getbasetemp() / "images")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, odd: dict[str, str]) -> Iterator[Stack]:
    base = tmp_path_factory.getbasetemp()
    stack = Stack(base / "home", base / "images")
    try:
        yield stack
    finally:
        stack.end()


def files_of(stack: Stack, batch: str) -> set[str]:
    folder = stack.images / batch
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {f"s3://landing/images/{batch}/{path}" for path in paths}


def sorted_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return sorted(frame.to_dicts(), key=lambda row: (str(row.get("model_id")), str(row.get("image_uri"))))


def check_what_is_printed(stack: Stack, printed: str, unchanged: set[str]) -> None:
    """Hold the printed table against the newest runs row of each batch, and run the printed program."""
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line.startswith("2026-") and "%" in line}
    newest = {row["batch_id"]: row for row in stack.table("runs").sort("version").to_dicts()}
    assert lines.keys() == newest.keys()
    for batch, row in newest.items():
        counts = [int(value) for value in lines[batch][1:5]]
        assert counts == [row[name] for name in ("listed", "featurized", "reused", "quarantined")]
        assert lines[batch][-1] == ("unchanged" if batch in unchanged else "published")
    assert "image_uri" in run_printed_program(printed)
    assert json.loads(Layout(stack.home).password_file.read_text())["admin"] not in printed


@pytest.fixture(scope="module")
def published(stack: Stack) -> Stack:
    """The stack after its first run, of two batches."""
    done = stack.run(f"{BAD_FIRST} {SECOND}")
    assert done.returncode == 0, done.stdout + done.stderr
    return stack


@pytest.mark.parametrize("batch", [BAD_FIRST, SECOND])
def test_every_image_is_in_one_table_once(batch: str, published: Stack) -> None:
    tables = [published.table(name).filter(pl.col("batch_id") == batch) for name in ("features", "quarantine")]
    uris = [uri for table in tables for uri in table["image_uri"]]
    assert len(uris) == len(set(uris))
    assert set(uris) == files_of(published, batch)


def test_broken_images_alone_are_set_aside(published: Stack, odd: dict[str, str]) -> None:
    broken = {uri.rsplit("/", 1)[1] for uri in published.table("quarantine")["image_uri"]}
    assert broken == {name for name, decode in odd.items() if decode == "broken"}


def test_vectors_are_finite_and_of_the_backbones_length(published: Stack) -> None:
    vectors = np.array(published.table("features")["features"].to_list())
    assert vectors.shape[1] == 1280
    assert np.isfinite(vectors).all()


def test_the_counts_of_a_run_add_up(published: Stack) -> None:
    for row in published.table("runs").to_dicts():
        assert row["listed"] == row["featurized"] + row["reused"] + row["quarantined"]
        assert row["network_runs"] == row["featurized"]


def test_the_current_model_covers_every_image(published: Stack) -> None:
    current = published.table("promotions").filter(pl.col("kind") == "pca").sort("sequence")["model_id"][-1]
    covered = published.table("pca_features").filter(pl.col("model_id") == current)
    assert set(covered["image_uri"]) == set(published.table("features")["image_uri"])


def test_the_password_is_the_owners_alone(published: Stack) -> None:
    assert Layout(published.home).password_file.stat().st_mode & 0o077 == 0


def test_a_log_in_is_needed(published: Stack) -> None:
    layout = Layout(published.home)
    answer = requests.get(f"{read_state(layout).api_address}/api/v2/dags", timeout=60)
    assert answer.status_code == 401


def test_the_pages_in_airflows_ui_show_what_is_published(published: Stack, tmp_path: Path) -> None:
    """As a person does it: log in, look at the batches, choose one, look at its images and at what was set aside."""
    layout, runs = Layout(published.home), {row["batch_id"]: row for row in published.table("runs").to_dicts()}
    aside = published.table("quarantine").filter(pl.col("batch_id") == BAD_FIRST)
    with browsing(read_state(layout).api_address, tmp_path) as ui:
        ui.log_in("admin", json.loads(layout.password_file.read_text())["admin"])
        shown = ui.open_orchard()
        rows = shown.locator("#table tbody tr")
        rows.nth(1).wait_for()
        cells = [row.locator("td").all_inner_texts() for row in rows.all()]
        assert [[row[0], row[3], row[6]] for row in cells] == [
            [batch, str(runs[batch]["listed"]), str(runs[batch]["quarantined"])] for batch in (SECOND, BAD_FIRST)
        ]
        assert shown.locator("#calendar button").count() == 2
        assert ui.faults(shown) == []
        shown.locator(f'#calendar button[aria-label^="{BAD_FIRST}"]').click()
        expect(rows).to_have_count(1, timeout=_PATIENCE)
        rows.locator("a").click()
        expect(shown.locator("h1")).to_have_text(f"Batch {BAD_FIRST}", timeout=_PATIENCE)
        images = shown.locator("#images img")
        expect(images.first).not_to_have_js_property("naturalWidth", 0, timeout=_PATIENCE)
        assert images.count() == runs[BAD_FIRST]["listed"] - runs[BAD_FIRST]["quarantined"]
        assert {*shown.locator("#quarantined tbody td:first-child").all_inner_texts()} == {*aside["image_uri"]}
        assert ui.faults(shown) == []
        ui.page.evaluate("document.documentElement.className = 'dark'")
        expect(shown.locator("html")).to_have_class("dark", timeout=_PATIENCE)
        assert ui.faults(shown, is_dark=True) == []
        shown.locator("#images a").first.click()
        expect(shown.locator("#picture img")).not_to_have_js_property("naturalWidth", 0, timeout=_PATIENCE)
        assert ui.faults(shown) == []
        assert (ui.complaints, ui.hosts) == ([], {ui.address.partition("://")[2]})


@pytest.mark.usefixtures("published")
def test_lineage_says_what_was_made_of_what(stack: Stack) -> None:
    events = [json.loads(line) for line in (stack.home / "lineage" / "events.jsonl").read_text().splitlines()]
    published = {row["manifest_digest"]: row for row in stack.table("runs").to_dicts()}
    told = {}
    for event in events:
        facet = event["run"]["facets"].get("orchard_batchVersion")
        if facet:
            told[facet["manifestDigest"]] = facet
            versions = [output["facets"]["version"]["datasetVersion"] for output in event["outputs"]]
            assert versions[0] == str(published[facet["manifestDigest"]]["features_version"])
            statistics = event["outputs"][0]["outputFacets"]["outputStatistics"]
            assert statistics["rowCount"] == facet["counts"]["featurized"] + facet["counts"]["reused"]
            assert event["inputs"][0]["namespace"] == "s3://landing"
    assert told.keys() == published.keys()
    for digest, facet in told.items():
        assert (facet["runId"], facet["backbone"]) == (published[digest]["run_id"], published[digest]["backbone"])


@pytest.mark.usefixtures("published")
def test_one_late_image_runs_the_backbone_once(stack: Stack) -> None:
    write(stack.images / SECOND / "late" / "é 日本.jpg", image_bytes("Banana", 500))
    before = stack.table("features")
    done = stack.run(f"{BAD_FIRST} {SECOND}")
    assert done.returncode == 0
    check_what_is_printed(stack, done.stdout, {BAD_FIRST})
    row = stack.table("runs").filter(pl.col("batch_id") == SECOND).sort("version").to_dicts()[-1]
    assert (row["version"], row["featurized"], row["network_runs"]) == (2, 1, 1)
    assert row["model_id"] is not None
    assert stack.table("features").height == before.height + 1
    old = {row["image_uri"]: row["features"] for row in before.to_dicts()}
    new = {row["image_uri"]: row["features"] for row in stack.table("features").to_dicts()}
    assert old.items() <= new.items()


@pytest.fixture(scope="module")
def uploaded_bare(published: Stack) -> str:
    """The key of an image that a bare S3 client has uploaded, and whose event has led to a published version."""
    s3, api = bare_client(published), published.api
    key, whole = f"images/{SECOND}/bare/a + é.jpg", image_bytes("Banana", 501)
    before = newest_version(published, SECOND)
    api.call("PATCH", "dags/pca_model", {"is_paused": True})  # what is told to a paused DAG is lost
    s3.put_object(Bucket="landing", Key="images/no batch/x.jpg", Body=whole)
    s3.put_object(Bucket="landing", Key=key, Body=whole)
    while newest_version(published, SECOND) == before:
        assert not api.runs("image_batches_on_arrival", ("failed",))
        time.sleep(1)
    wait_for_silence(api, "image_arrivals", "image_batches_on_arrival")
    return key


def newest_version(stack: Stack, batch: str) -> int:
    return int(max(stack.table("runs").filter(pl.col("batch_id") == batch)["version"]))


def test_an_upload_by_a_bare_s3_client_starts_the_work(stack: Stack, uploaded_bare: str) -> None:
    assert stack.table("features").filter(pl.col("image_uri") == f"s3://landing/{uploaded_bare}").height == 1
    row = stack.table("runs").filter(pl.col("batch_id") == SECOND).sort("version").to_dicts()[-1]
    assert row["network_runs"] == 1
    runs = [run for run in stack.api.runs("image_batches_on_arrival") if run["dag_run_id"] == row["run_id"]]
    assert [run["partition_key"] for run in runs] == [SECOND]


def test_reconciling_does_the_work_of_a_lost_event(stack: Stack, uploaded_bare: str) -> None:
    api = stack.api
    api.call("PATCH", "dags/pca_model", {"is_paused": False})
    warehouse = {"ORCHARD_WAREHOUSE": f"file://{stack.home}/warehouse"}
    assert "pca_model" in pending_work(warehouse)
    models = len(api.runs("pca_model"))
    reconciled = api.start_run("reconcile_uploads", None, {})
    while len(api.runs("pca_model")) == models:
        assert not api.runs("reconcile_uploads", ("failed",))
        time.sleep(1)
    wait_for_silence(api, "reconcile_uploads", "pca_model", "classifier_model")
    states = {task["task_id"]: task["state"] for task in api.task_instances("reconcile_uploads", reconciled)}
    assert states == {"find_differences": "skipped", "wake_model": "success"}
    assert pending_work(warehouse) == {}


@pytest.mark.usefixtures("published")
def test_a_backfill_takes_both_ends_of_its_range_and_skips_empty_days(stack: Stack) -> None:
    api, reports = stack.api, stack.reports()
    start_backfill(api, "2026-02-28", SECOND)
    wait_for_silence(api, "image_batches")
    runs = [run for run in api.runs("image_batches") if run["run_type"] == "backfill"]
    assert sorted(run["partition_key"] for run in runs) == ["2026-02-28", BAD_FIRST, SECOND]
    skipped = {}
    for run in runs:
        instances = api.task_instances("image_batches", run["dag_run_id"])
        states = {task["task_id"]: task["state"] for task in instances}
        skipped[run["partition_key"]] = next(task for task in ("wait_for_uploads", "plan_batch") if states[task] == "skipped")
    assert skipped == {"2026-02-28": "wait_for_uploads", BAD_FIRST: "plan_batch", SECOND: "plan_batch"}
    assert stack.reports() == reports


@pytest.mark.usefixtures("published")
def test_a_backfill_is_cancelled_and_what_it_left_is_taken_up(stack: Stack) -> None:
    api, reports, days = stack.api, stack.reports(), ("2026-02-25", "2026-02-27")
    # The former one ends a while after its runs.
    while any(one["completed_at"] is None for one in api.call("GET", "backfills?dag_id=image_batches")["backfills"]):
        time.sleep(1)
    api.call("PATCH", "dags/image_batches", {"is_paused": True})
    backfill = start_backfill(api, *days)["id"]
    api.call("PUT", f"backfills/{backfill}/cancel")
    taken = {how: start_backfill(api, *days, how, "/dry_run")["total_entries"] for how in ("none", "failed", "completed")}
    assert taken == {"none": 0, "failed": 3, "completed": 3}
    api.call("PATCH", "dags/image_batches", {"is_paused": False})
    start_backfill(api, *days, "failed")
    wait_for_silence(api, "image_batches")
    taken = {how: start_backfill(api, *days, how, "/dry_run")["total_entries"] for how in ("none", "failed", "completed")}
    assert taken == {"none": 0, "failed": 0, "completed": 3}
    assert stack.reports() == reports


@pytest.mark.usefixtures("uploaded_bare")
def test_every_task_cleared_and_run_again_leaves_the_tables_equal(stack: Stack) -> None:
    names = ("features", "quarantine", "pca_features", "runs", "captured", "promotions")
    before = {name: sorted_rows(stack.table(name)) for name in names}
    run_id = stack.table("runs").filter(pl.col("batch_id") == SECOND).sort("version")["run_id"][-1]
    dag_id = "image_batches_on_arrival"
    api, reports = stack.api, stack.reports()
    body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True}
    api.call("POST", f"dags/{dag_id}/clearTaskInstances", body)
    states: dict[str, str] = {}
    while not states or set(states.values()) - {"success", "skipped", "failed"}:
        time.sleep(1)
        states = {task["task_id"]: task["state"] for task in api.task_instances(dag_id, run_id)}
    assert set(states.values()) == {"success", "skipped"}
    assert {name: sorted_rows(stack.table(name)) for name in names} == before
    assert stack.reports() == reports


@pytest.mark.usefixtures("published")
def test_a_day_of_changes_costs_only_the_content_that_is_new(stack: Stack) -> None:
    """An overwritten image, a copy under another key, and known content by a multipart upload, whose ETag is no MD5."""
    s3, known = bare_client(stack), image_bytes("Banana", 500)
    write(stack.images / SECOND / "late" / "é 日本.jpg", image_bytes("Banana", 502))
    prefix = f"images/{SECOND}/copies"
    s3.put_object(Bucket="landing", Key=f"{prefix}/again.jpg", Body=image_bytes("Banana", 501))
    begun = s3.create_multipart_upload(Bucket="landing", Key=f"{prefix}/parts.jpg")
    target = {"Bucket": "landing", "Key": f"{prefix}/parts.jpg", "UploadId": begun["UploadId"]}
    part = s3.upload_part(**target, PartNumber=1, Body=known)
    s3.complete_multipart_upload(**target, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    before = newest_version(stack, SECOND)
    assert stack.run(SECOND).returncode == 0
    rows = stack.table("runs").filter((pl.col("batch_id") == SECOND) & (pl.col("version") > before)).to_dicts()
    assert sum(row["network_runs"] for row in rows) == 1
    etags = dict(stack.table("features").filter(pl.col("batch_id") == SECOND).select("image_uri", "etag").iter_rows())
    assert etags[f"s3://landing/{prefix}/parts.jpg"].endswith("-1")


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_generated_history_ends_as_one_clean_run(seed: int, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    if not (stack.home / "warehouse" / "runs").is_dir():  # this test alone, as `make soak` runs it
        assert stack.run(SECOND).returncode == 0
    contents = some_contents(SHARED / "fruits360", [image_bytes("Kiwi", number) for number in range(600, 608)])
    history = GeneratedHistory(seed, stack.home, stack.aws_variables, stack.api, contents)
    history.run(STEPS)
    print(history)
    history.check(tmp_path_factory.getbasetemp() / f"clean-{seed}")


def test_a_batch_that_fails_its_audit_tells_why_and_publishes_nothing(stack: Stack) -> None:
    done = stack.run(f"{FAILING} {NONE_GOOD}")
    assert done.returncode == 1
    assert "task validate failed" in done.stderr
    assert "quarantined_share" in done.stderr
    for name in ("features", "quarantine", "runs"):
        assert stack.table(name).filter(pl.col("batch_id") == FAILING).height == 0
    assert stack.table("quarantine").filter(pl.col("batch_id") == NONE_GOOD).height == 15
    (row,) = stack.table("runs").filter(pl.col("batch_id") == NONE_GOOD).to_dicts()
    assert "has no good image" in row["audit_verdict"]


@pytest.mark.usefixtures("published")
def test_after_a_stop_nothing_is_computed_again(stack: Stack) -> None:
    reports = stack.reports()
    stopped = stack.command("stop")
    assert ", 0 left" in stopped.stdout
    done = stack.run(f"{BAD_FIRST} {SECOND}")
    assert done.returncode == 0
    assert [line.split()[-1] for line in done.stdout.splitlines() if "%" in line] == ["unchanged", "unchanged"]
    assert stack.reports() == reports


@pytest.mark.usefixtures("published")
def test_one_clean_run_of_the_reference_engine_agrees(stack: Stack) -> None:
    """After all that happened the rows are those of one clean run. TensorFlow is another backbone id, so the vectors are near."""
    images = stack.images.with_name("few")
    for path in sorted((stack.images / SECOND).rglob("*.jpg"))[::8]:
        copy(path, images / SECOND / path.parent.name / path.name)
    done = Stack(stack.home, images).run(SECOND, ORCHARD_ENGINE="tensorflow", WAREHOUSE=str(stack.home / "reference"))
    assert done.returncode == 0, done.stdout + done.stderr
    reference = pl.read_delta(str(stack.home / "reference" / "features")).to_dicts()
    assert {row["backbone"] for row in reference}.isdisjoint(set(stack.table("features")["backbone"]))
    second = stack.table("features").filter(pl.col("batch_id") == SECOND).to_dicts()
    told = ("image_uri", "etag", "size_bytes", "content_sha256", "label", "width", "height")
    assert {tuple(row[name] for name in told) for row in second} == {tuple(row[name] for name in told) for row in reference}
    found = {row["image_uri"]: row["features"] for row in second}
    assert len(reference) >= len(list(images.rglob("*.jpg")))
    for row in reference:
        expected = np.array(row["features"])
        assert np.abs(np.array(found[row["image_uri"]]) - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
