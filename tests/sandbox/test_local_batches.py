"""A folder of images as the user has it becomes batches, or an error that says what to do."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from orchard_sandbox.errors import SandboxError
from orchard_sandbox.stack.batches import find_batches


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def keys(folder: Path, *chosen: str, day: str | None = None) -> dict[str, list[str]]:
    return {batch.name: sorted(batch.files) for batch in find_batches(folder, chosen, day)}


def test_dated_folders_are_batches_at_any_depth_and_with_empty_ones(tmp_path: Path) -> None:
    fill(tmp_path, "2026-01-01/Red Apple/a.jpg", "2026-01-01/Pear/green/b.jpg", "2026-01-01/plain.jpg", "notes.txt")
    (tmp_path / "2026-01-02").mkdir()
    assert keys(tmp_path) == {"2026-01-01": ["Pear/green/b.jpg", "Red Apple/a.jpg", "plain.jpg"], "2026-01-02": []}
    assert keys(tmp_path, "2026-01-02") == {"2026-01-02": []}


def test_labels_become_todays_batch_or_the_named_one(tmp_path: Path) -> None:
    fill(tmp_path, "Apple/a.jpg", "Pear/b.jpg")
    assert list(keys(tmp_path)) == [datetime.now(UTC).strftime("%Y-%m-%d")]
    assert keys(tmp_path, day="2026-02-03") == {"2026-02-03": ["Apple/a.jpg", "Pear/b.jpg"]}


@pytest.mark.parametrize("labels", [["1355868"], ["1355868", "1363227"], ["20260131", "1355868"], ["13551201"], ["99991231"]])
def test_labels_may_be_numbers(tmp_path: Path, labels: list[str]) -> None:
    fill(tmp_path, *(f"{label}/a.jpg" for label in labels))
    assert keys(tmp_path, day="2026-02-03") == {"2026-02-03": sorted(f"{label}/a.jpg" for label in labels)}
    assert list(keys(tmp_path)) == [datetime.now(UTC).strftime("%Y-%m-%d")]


def test_a_named_batch_makes_every_folder_a_label(tmp_path: Path) -> None:
    fill(tmp_path, "20260131/a.jpg", "20260201/a.jpg")
    assert keys(tmp_path, day="2026-02-03") == {"2026-02-03": ["20260131/a.jpg", "20260201/a.jpg"]}


def test_hidden_files_are_left_out_and_counted(tmp_path: Path) -> None:
    fill(tmp_path, "2026-01-01/Apple/a.jpg", "2026-01-01/.DS_Store", "2026-01-01/Apple/.DS_Store", "2026-01-01/.git/x")
    fill(tmp_path, "2026-01-01/__MACOSX/Apple/a.jpg", "2026-01-01/Thumbs.db")
    (batch,) = find_batches(tmp_path)
    assert (sorted(batch.files), batch.hidden) == (["Apple/a.jpg"], 5)


def test_links_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "Apple/a.jpg")
    images = tmp_path / "images"
    images.mkdir()
    (images / "2026-01-01").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "Apple" / "loop").symlink_to(tmp_path / "elsewhere")
    assert keys(images) == {"2026-01-01": ["Apple/a.jpg"]}


@pytest.mark.parametrize(
    ("names", "chosen", "day", "says"),
    [
        (["2026-01-01/A/a", "stranger/a"], (), None, "stranger is not a batch"),
        (["2026-01-01/A/a"], ("2026-01-02",), None, "there are 2026-01-01"),
        (["2026-01-01/A/a"], (), "2026-01-01", "already contains batch folders"),
        *(
            (names, (), None, "looks like a batch")
            for names in (["2026-13-41/A/a"], ["2026_1_31/A/a"], ["20260131/A/a", "20260201/A/a"])
        ),
        (["A/a"], (), "tomorrow", "BATCH=tomorrow"),
        (["A/a"], ("2026-01-01",), None, "has no effect"),
        (["A/.hidden"], (), None, "found no file"),
        (["2026-01-01/" + "/".join(["d" * 240] * 4) + "/a"], (), None, "shorten it"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, names: list[str], chosen: tuple[str, ...], day: str | None, says: str
) -> None:
    fill(tmp_path, *names)
    with pytest.raises(SandboxError, match=says):
        find_batches(tmp_path, chosen, day)


def test_a_missing_folder_and_a_name_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="is not a folder"):
        find_batches(tmp_path / "none")
    folder = os.fsencode(tmp_path / "2026-01-01")
    os.mkdir(folder)
    with open(folder + b"/\xff.jpg", "wb"):
        pass
    with pytest.raises(SandboxError, match="not UTF-8"):
        find_batches(tmp_path)
