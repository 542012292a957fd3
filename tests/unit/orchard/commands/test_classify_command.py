"""classify: what the jobs' process says of files, as a person and a program read it, and which classifier it asks."""

import json
from pathlib import Path
from typing import Any

import pytest
from orchard.cli import main
from orchard.models.kinds import CLASSIFIER
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from support.faked_flow import run_batch, run_model
from support.jobs_program import stand_in_for_jobs
from support.published_batches import DAYS

Out = pytest.CaptureFixture[str]
# Stands for the jobs' Python: an `orchard-jobs embed` that answers by the name of each file, and says whose classifier it was.
FAKE = """#!{python}
import json, sys
arguments = sys.argv[sys.argv.index("embed"):]
files = arguments[arguments.index("--") + 1:]
given = dict(zip(arguments[1::2], arguments[2::2]))
model = json.loads(given["--classifier"])
assert json.loads(given["--backbone"])["name"] == "efficientnet_lite0" and int(given["--pixel-limit"]) > 0
assert model["path"] == "classifiers/" + model["model_id"] + "/model.parquet" and model["k"] == 2
for file in files:
    row = {{"content_sha256": "ab" * 32, "width": 3, "height": 2, "predicted": "apple\\x07", "score": 0.875, "second": "plum"}}
    row |= {{"second_score": 0.125, "distance": 40.25, "max_distance": 38.5, "is_known": file != "odd"}}
    if file.startswith("bad"):
        row = {{"reason": "truncated", "message": "cut"}}
    print(json.dumps({{"file": file}} | row), flush=True)
sys.exit(int(any(file.startswith("bad") for file in files)))
"""


@pytest.fixture(autouse=True)
def environment(settings: Settings, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_jobs(FAKE, tmp_path, monkeypatch)
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)


def fit(tables: Tables, settings: Settings, day: str) -> str:
    """Publish a batch of apples and plums, and return the id of the classifier that is then current."""
    names = [f"{label}/{n}" for label in ("apple", "plum") for n in range(12)]
    run_batch(tables, settings, day, {f"images/{day}/{name}.jpg": f"{day}/{name}".encode() for name in names})
    model_id = run_model(tables, settings, day, CLASSIFIER).model_id
    assert model_id is not None
    return model_id


def answers(capsys: Out) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_without_a_classifier_there_is_none_to_ask(capsys: Out) -> None:
    assert main(["classify", "a.jpg"]) == 2
    assert "there is no classifier of efficientnet_lite0-" in capsys.readouterr().err


def test_the_current_classifier_is_asked_or_the_named_one(tables: Tables, settings: Settings, capsys: Out) -> None:
    first, second = (fit(tables, settings, day) for day in DAYS[:2])
    assert first != second
    for arguments, model_id in (([], second), (["--model", first], first)):
        assert main(["classify", "a.jpg", "--json", *arguments]) == 0
        (found,) = answers(capsys)
        assert (found["model_id"], found["backbone"], found["file"]) == (model_id, settings.backbone.id, "a.jpg")
        assert (found["predicted"], found["score"], found["second"], found["is_known"]) == ("apple\x07", 0.875, "plum", True)
    assert main(["classify", "a.jpg", "--model", "lda-none"]) == 2
    assert "'lda-none'" in capsys.readouterr().err


def test_a_person_reads_a_line_a_file(tables: Tables, settings: Settings, capsys: Out) -> None:
    fit(tables, settings, DAYS[0])
    assert main(["classify", "a.jpg", "odd", "bad\x1b", "b.jpg"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "a.jpg  apple\\x07 0.88, then plum 0.12",
        "odd  none of the classes: 40.2 away, the limit is 38.5 (else apple\\x07 0.88, then plum 0.12)",
        "bad\\x1b  truncated: cut",
        "b.jpg  apple\\x07 0.88, then plum 0.12",
    ]
    assert err == ""
