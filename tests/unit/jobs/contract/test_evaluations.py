"""An evaluation: cells that merge, and what is a fair test of a classifier."""

import json
from dataclasses import asdict

from orchard_jobs.contract.evaluations import Cell, Evaluation, mean_score, merge_cells, right_in

CELLS = [
    Cell("apple", "apple", False, 3, 3, 2, 2.5),
    Cell("apple", "pear", False, 1, 1, 1, 0.5),
    Cell("apple", "apple", True, 5, 5, 5, 4.5),
    Cell(None, "apple", False, 2, 0, 1, 1.0),
    Cell(None, "pear", True, 1, 0, 0, 0.5),
]
FOUND = Evaluation("lda-1", "2026-01-05", "a" * 64, merge_cells(CELLS))


def test_cells_of_one_pair_become_one() -> None:
    merged = merge_cells([*CELLS, Cell("apple", "apple", False, 1, 1, 0, 0.5)])
    assert len(merged) == len(CELLS)
    assert Cell("apple", "apple", False, 4, 4, 2, 3.0) in merged
    assert merge_cells(list(reversed(CELLS))) == merge_cells(CELLS)


def test_only_labelled_images_that_were_never_seen_are_a_fair_test() -> None:
    assert (FOUND.rows, right_in(FOUND.unseen), right_in(FOUND.seen), right_in(FOUND.unlabelled)) == (12, 3, 5, 0)
    assert [sum(cell.rows for cell in cells) for cells in (FOUND.unseen, FOUND.seen, FOUND.unlabelled)] == [4, 5, 3]
    assert (mean_score(FOUND.unseen), mean_score(FOUND.unlabelled), mean_score(())) == (0.75, 0.5, None)


def test_an_evaluation_comes_back_from_its_text() -> None:
    assert Evaluation.from_fields(json.loads(json.dumps(asdict(FOUND)))) == FOUND
