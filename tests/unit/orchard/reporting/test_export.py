"""export: the rows of the current versions, whole, in a form that pandas reads; whole files or none."""

import csv
import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from orchard.cli import main
from orchard.models.model import current_promotion, read_model
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.classifier_tables import PREDICTIONS
from orchard_jobs.contract.columns import TABLES
from support.fake_jobs import BROKEN, FakeJobs, vector_of
from support.faked_flow import plan, run_batch, run_model, stage_and_publish
from support.faults import killed_after

DAY, NEXT = "2026-01-01", "2026-01-02"
ODD = ['a "quoted", name.jpg', "two\nlines.jpg", "carriage\rreturn.jpg", "é 日本 %20#?.jpg", ";tab\t.jpg"]


def bucket_of(day: str, salt: str = "") -> dict[str, bytes]:
    images = {f"images/{day}/apple/{name}": f"{day}{name}{salt}".encode() for name in ODD}
    return images | {f"images/{day}/bare.jpg": f"{day}bare".encode(), f"images/{day}/pear/broken.jpg": BROKEN}


@pytest.fixture
def own_tables(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands read the test's own warehouse."""
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    monkeypatch.setenv("ORCHARD_COMPONENTS", "3")


@pytest.fixture
def published(tables: Tables, settings: Settings, own_tables: None) -> Tables:
    for day in (DAY, NEXT):
        run_batch(tables, settings, day, bucket_of(day))
    run_model(tables, settings)
    return tables


def read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values={"label": [""]})


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_image_of_a_batch_comes_with_its_own_vector(published: Tables, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"out.{ending}"
    assert main(["export", "features", "--batch", DAY, "--to", str(file)]) == 0
    found = read_csv(file) if ending == "csv" else pq.read_table(file, partitioning=None).to_pandas()
    assert len(found) == len(ODD) + 1
    assert set(found.batch_id) == {DAY}
    for uri, content in ((f"s3://landing/{key}", content) for key, content in bucket_of(DAY).items() if content != BROKEN):
        row = found[found.image_uri == uri].iloc[0]
        vector = row[[f"features_{n}" for n in range(8)]].to_numpy(np.float32) if ending == "csv" else row.features
        np.testing.assert_array_equal(vector, vector_of(content, 8))
    assert found[found.label.isna()].image_uri.tolist() == [f"s3://landing/images/{DAY}/bare.jpg"]
    if ending == "csv":
        assert {str(found[f"features_{n}"].dtype) for n in range(8)} == {"float64"}


@pytest.mark.parametrize("table", [table.name for table in TABLES if table is not PREDICTIONS])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_table_is_exported_whole(published: Tables, tmp_path: Path, table: str, ending: str) -> None:
    file = tmp_path / f"out.{ending}"
    assert main(["export", table, "--to", str(file)]) == 0
    found = pd.read_csv(file) if ending == "csv" else pd.read_parquet(file)
    (of_name,) = (one for one in TABLES if one.name == table)
    assert len(found) == len(list(published.rows(of_name)))
    if table == "runs" and ending == "csv":
        assert json.loads(found.job_ids[0]) == ["fake"]


def labels_in_csv(file: Path) -> set[str]:
    with file.open(newline="") as text:
        return {row["label"] for row in csv.DictReader(text)}


FORMULAS = {"=cmd|calc", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"}


def test_a_text_in_csv_is_no_formula_but_with_raw(tables: Tables, settings: Settings, tmp_path: Path, own_tables: None) -> None:
    harmless = {"a=1", "1-2", "'=1", ""}
    run_batch(tables, settings, DAY, {f"images/{DAY}/{label}/a.jpg": label.encode() for label in FORMULAS | harmless})
    for option, guard in (((), "'"), (("--raw",), "")):
        file = tmp_path / f"x{guard}.csv"
        assert main(["export", "features", "--to", str(file), *option]) == 0
        assert labels_in_csv(file) == {guard + label for label in FORMULAS} | harmless
    assert main(["export", "features", "--to", str(tmp_path / "x.parquet")]) == 0
    assert set(pd.read_parquet(tmp_path / "x.parquet").label) == FORMULAS | harmless


def test_a_model_is_its_mean_and_its_components(published: Tables, settings: Settings, tmp_path: Path) -> None:
    promotion = current_promotion(published, settings.backbone.id)
    assert promotion is not None
    basis = read_model(published.warehouse, promotion.model_id).basis
    assert main(["export", "model", "--model", promotion.model_id, "--to", str(tmp_path / "model.csv")]) == 0
    found = pd.read_csv(tmp_path / "model.csv", float_precision="round_trip")
    loadings = found[[f"loadings_{n}" for n in range(8)]].to_numpy()
    assert found.vector.tolist() == ["mean", "component_1", "component_2", "component_3"]
    np.testing.assert_array_equal(loadings, np.vstack([basis.mean, basis.components]))
    np.testing.assert_array_equal(found.explained_variance[1:], basis.explained_variance)


@pytest.mark.parametrize("commits", [1, 2, 3, 4])
def test_a_version_that_is_half_published_does_not_show(
    published: Tables, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    def exported(table: str) -> pd.DataFrame:
        assert main(["export", table, "--to", str(tmp_path / f"{table}.parquet"), "--force"]) == 0
        return pd.read_parquet(tmp_path / f"{table}.parquet").sort_values("image_uri", ignore_index=True)

    run_batch(published, settings, DAY, bucket_of(DAY, "second"))
    before = {table: exported(table) for table in ("features", "quarantine", "pca_features")}
    bucket = bucket_of(DAY, "second") | {f"images/{DAY}/late.jpg": b"late", f"images/{DAY}/bad.jpg": BROKEN + b"2"}
    head = plan(published, settings, DAY, bucket)
    assert head is not None
    with killed_after(commits, monkeypatch):
        stage_and_publish(published, head, FakeJobs(published, bucket))
    for table, rows in before.items():
        pd.testing.assert_frame_equal(exported(table), rows)
    stage_and_publish(published, head, FakeJobs(published, bucket))
    assert len(exported("features")) == len(before["features"]) + 1


def test_rows_of_an_older_version_are_left_out_and_said_to_be(
    published: Tables, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promotion = current_promotion(published, settings.backbone.id)
    run_batch(published, settings, "2026-01-03", bucket_of("2026-01-03"))
    run_model(published, settings, "second")
    settings_of_k = Settings.from_environment({**os.environ, "ORCHARD_COMPONENTS": "2"})
    run_model(published, settings_of_k, "third")
    run_batch(published, settings_of_k, DAY, bucket_of(DAY, "changed"))
    assert promotion is not None
    file = tmp_path / "out.parquet"
    assert main(["export", "pca_features", "--model", promotion.model_id, "--to", str(file), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["left_out"] == [DAY]
    assert f"batch {DAY} is not exported" in err
    assert DAY not in set(pd.read_parquet(file).batch_id)


def test_a_file_that_is_there_is_replaced_only_by_force(
    published: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.csv"
    file.write_text("mine")
    assert main(["export", "runs", "--to", str(file)]) == 2
    assert "replace it with --force" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert main(["export", "runs", "--to", str(file), "--force"]) == 0
    assert file.read_text() != "mine"
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "warehouse"]


def limit_files() -> None:
    """Let this process write no file of more than 700 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_full_disk_leaves_no_half_file(published: Tables, tmp_path: Path, ending: str) -> None:
    """A limit on the size of a file stands for the full disk: the write fails in the middle."""
    folder = tmp_path / "to"
    folder.mkdir()
    (folder / f"out.{ending}").write_text("old")
    command = [sys.executable, "-m", "orchard.cli", "export", "models", "--to", str(folder / f"out.{ending}"), "--force"]
    done = subprocess.run(command, preexec_fn=limit_files, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert os.strerror(errno.EFBIG) in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(folder) == [f"out.{ending}"]
    assert (folder / f"out.{ending}").read_text() == "old"


def test_stdout_is_csv_alone(published: Tables) -> None:
    command = [sys.executable, "-m", "orchard.cli", "export", "promotions", "--to", "-", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith('"backbone","sequence"')
    assert json.loads(done.stderr) == {"rows": 1, "left_out": []}


def test_a_reader_that_goes_away_is_no_traceback(published: Tables) -> None:
    command = f"{sys.executable} -m orchard.cli export models --to - | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["features", "--batch", "2027-01-01", "--to", "x.csv"], "batch '2027-01-01' was never published"),
        (["models", "--batch", DAY, "--to", "x.csv"], "--batch does not apply to models"),
        (["features", "--model", "pca-1", "--to", "x.csv"], "--model does not apply to features"),
        (["pca_features", "--model", "pca-1", "--to", "x.csv"], "no model has the id 'pca-1'"),
        (["model", "--model", "../x", "--to", "x.csv"], "no model has the id '../x'"),
        (["runs", "--to", "x.xlsx"], "neither .csv nor .parquet"),
        (["runs", "--to", "/no/such/folder/x.csv"], "the folder /no/such/folder is not there"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    published: Tables, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["export", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_an_empty_table_is_its_head(tables: Tables, own_tables: None, tmp_path: Path) -> None:
    assert main(["export", "features", "--to", str(tmp_path / "x.csv")]) == 0
    assert (tmp_path / "x.csv").read_text().startswith('"image_uri","etag","size_bytes"')
