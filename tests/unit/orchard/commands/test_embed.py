"""embed: what the jobs' process says, as a person and a program read it; its faults; never a hanging process."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from orchard.cli import main
from orchard.commands.embed import embed
from orchard.models.model import current_promotion
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from support.faked_flow import run_batch, run_model
from support.jobs_program import stand_in_for_jobs

DAY = "2026-01-01"
Out = pytest.CaptureFixture[str]
# Stands for the jobs' Python: an `orchard-jobs embed` that answers what its first file says.
FAKE = """#!{python}
import json, os, sys
arguments = sys.argv[sys.argv.index("embed"):]
files = arguments[arguments.index("--") + 1:]
given = dict(zip(arguments[1::2], arguments[2::2]))
model = json.loads(given["--model"]) if "--model" in given else None
assert json.loads(given["--backbone"])["name"] == "efficientnet_lite0" and int(given["--pixel-limit"]) > 0
for file in files:
    if file == "die":
        sys.exit("JobError: the network failed")
    if file == "unset":
        print("ConfigurationError: no weights", file=sys.stderr)
        sys.exit(2)
    row = {{"file": file, "content_sha256": "ab" * 32, "width": 3, "height": 2, "features": [0.5] * 8}}
    row["pca_features"] = [1.25] * model["k"] if model else None
    if file.startswith("bad"):
        row = {{"file": file, "reason": "truncated", "message": "cut" + " \\x07" * (file != "bad")}}
    print(json.dumps(row), flush=True)
sys.exit(int(any(file.startswith("bad") for file in files)))
"""


@pytest.fixture(autouse=True)
def environment(settings: Settings, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_jobs(FAKE, tmp_path, monkeypatch)
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    monkeypatch.setenv("ORCHARD_COMPONENTS", "3")


def publish(tables: Tables, settings: Settings) -> str:
    run_batch(tables, settings, DAY, {f"images/{DAY}/apple/{n}.jpg": str(n).encode() for n in range(9)})
    run_model(tables, settings)
    promotion = current_promotion(tables, settings.backbone.id)
    assert promotion is not None
    return promotion.model_id


def test_without_a_model_there_are_features(capsys: Out) -> None:
    assert main(["embed", "a.jpg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pca_features"], found["model_id"], len(found["features"])) == (None, None, 8)
    assert main(["embed", "a.jpg"]) == 0
    assert "8 features (no PCA model yet): 0.5, 0.5, 0.5, 0.5, ..." in capsys.readouterr().out


def test_with_a_model_there_are_pca_features(tables: Tables, settings: Settings, capsys: Out) -> None:
    model_id = publish(tables, settings)
    for arguments in ([], ["--model", model_id]):
        assert main(["embed", "a.jpg", "b.jpg", "--json", *arguments]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(row["file"], row["model_id"], row["pca_features"]) for row in rows] == [
            ("a.jpg", model_id, [1.25] * 3),
            ("b.jpg", model_id, [1.25] * 3),
        ]
        assert {row["backbone"] for row in rows} == {settings.backbone.id}
    assert main(["embed", "a.jpg"]) == 0
    assert capsys.readouterr().out == f"a.jpg  3x2  {'ab' * 6}  3 pca_features of {model_id}: 1.25, 1.25, 1.25, ...\n"


def test_a_bad_image_is_told_and_the_others_come(capsys: Out) -> None:
    assert main(["embed", "a.jpg", "bad", "b.jpg"]) == 1
    out, err = capsys.readouterr()
    assert [line.split("  ")[0] for line in out.splitlines()] == ["a.jpg", "bad", "b.jpg"]
    assert "bad  truncated: cut" in out
    assert err == ""


NAMES = [b"ok.jpg", b"caf\xe9.jpg", b"\x1b[31mred\n\r.jpg", "é 日本.jpg".encode()]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_is_no_text_is_told_escaped(encoding: str) -> None:
    command: list[bytes | str] = [sys.executable, "-m", "orchard.cli", "embed", *NAMES]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    names = [line.split(b"  ")[0].decode(encoding) for line in done.stdout.split(b"\n")[:-1]]
    last = "é 日本.jpg" if encoding == "utf-8" else r"\xe9 \u65e5\u672c.jpg"
    assert names == ["ok.jpg", r"caf\udce9.jpg", r"\x1b[31mred\n\r.jpg", last]


def test_a_faulty_file_of_an_odd_name_is_told_escaped(capsys: Out) -> None:
    assert main(["embed", "bad\x1b[31m\udce9"]) == 1
    assert capsys.readouterr().out == "bad\\x1b[31m\\udce9  truncated: cut \\x07\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["a.jpg", "die", "b.jpg"], 1, "embed ended after 1 of 3 files: JobError: the network failed"),
        (["unset"], 2, "embed ended after 0 of 1 files: ConfigurationError: no weights"),
        (["a.jpg", "--model", "pca-none"], 2, "'pca-none'"),
    ],
)
def test_a_fault_is_one_line(capsys: Out, arguments: list[str], status: int, words: str) -> None:
    assert main(["embed", *arguments]) == status
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_jobs_python_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    monkeypatch.setenv("ORCHARD_JOBS_PYTHON", "/no/python")
    assert main(["embed", "a.jpg"]) == 2
    assert "ORCHARD_JOBS_PYTHON='/no/python' cannot be run" in capsys.readouterr().err


def test_a_reader_that_stops_ends_the_process(settings: Settings, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    slow = f"#!{sys.executable}\nimport os, signal\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\n"
    slow += 'print(\'{"file": "a"}\', flush=True)\nsignal.pause()\n'
    (tmp_path / "python").write_text(slow)
    rows = embed(Settings.from_environment(), ["a", "b"], None)
    assert isinstance(rows, Generator)
    assert next(rows) == {"file": "a"}
    rows.close()
    assert not Path(f"/proc/{pid.read_text()}").exists()
