"""A classifier's file: what goes in comes out bit for bit, the first that is written counts, and damage is an error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.classifier.stored import HeldOut, StoredClassifier, create_classifier, read_classifier, read_merged
from orchard_jobs.contract.classifier_tables import CLASSIFIERS
from orchard_jobs.contract.layout import model_path
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.errors import DamagedFileError, JobError
from orchard_jobs.storage import Warehouse
from support.labelled_samples import labelled

DATA = labelled({"apple": 40, "pear": 30, "plum": 20, "rare": 3})
CLASS_OF = {"apple": "pome", "pear": "pome", "plum": "stone"}
MODEL_ID = "lda-0123456789abcdef"
REFERENCE = ModelReference(MODEL_ID, model_path(MODEL_ID, CLASSIFIERS), 2)
STORED = StoredClassifier(
    model_id=MODEL_ID,
    backbone="backbone",
    classifier=fit(classes_of(DATA.moments, CLASS_OF), 0.1),
    n=93,
    shrinkage=0.1,
    temperature=1.5,
    max_distance=4.25,
    class_of=CLASS_OF,
    left_out={"rare": 3},
    sources=(("2026-01-05", "a" * 64), ("2026-01-06", "b" * 64)),
    held_out=HeldOut("batches", 2, 90, 81),
)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    warehouse = Warehouse.at(str(tmp_path))
    create_classifier(warehouse, REFERENCE.path, STORED, DATA.moments)
    return warehouse


def test_a_classifier_comes_back_bit_for_bit(warehouse: Warehouse) -> None:
    found = read_classifier(warehouse, REFERENCE)
    assert vars(found) | {"classifier": None} == vars(STORED) | {"classifier": None}
    assert found.classifier.classes == ("pome", "stone")
    for name in ("mean", "whitening", "centres", "log_priors"):
        np.testing.assert_array_equal(getattr(found.classifier, name), getattr(STORED.classifier, name))
    assert found.held_out.accuracy == 0.9


def test_so_do_the_class_moments_that_it_was_fitted_on(warehouse: Warehouse) -> None:
    moments, sources = read_merged(warehouse, REFERENCE)
    assert (moments.labels, sources) == (DATA.moments.labels, STORED.sources)
    for name in ("counts", "means", "upper_triangle"):
        np.testing.assert_array_equal(getattr(moments, name), getattr(DATA.moments, name))


def test_the_first_that_is_written_counts(warehouse: Warehouse) -> None:
    create_classifier(warehouse, REFERENCE.path, replace(STORED, temperature=9.0), DATA.moments)
    assert read_classifier(warehouse, REFERENCE).temperature == 1.5


def test_another_classifier_or_none_is_an_error(warehouse: Warehouse) -> None:
    with pytest.raises(JobError, match="holds classifier lda-0123456789abcdef, not lda-other"):
        read_classifier(warehouse, replace(REFERENCE, model_id="lda-other"))
    with pytest.raises(DamagedFileError, match="is not there"):
        read_merged(warehouse, replace(REFERENCE, path=model_path("lda-other", CLASSIFIERS)))


def test_a_changed_byte_of_the_file_is_found(warehouse: Warehouse) -> None:
    content = bytearray(warehouse.read(REFERENCE.path))
    content[content.index(STORED.classifier.mean.tobytes())] ^= 1
    warehouse.rewrite(REFERENCE.path, bytes(content))
    for read in (read_classifier, read_merged):
        with pytest.raises(DamagedFileError):
            read(warehouse, REFERENCE)


def test_the_file_of_a_wide_classifier_is_read_in_part(tmp_path: Path) -> None:
    """It is larger than what is read as a whole, so its columns are those of its table, too."""
    random = np.random.default_rng(0)
    rows, labels = random.random((700, 520)), ["apple", "pear"] * 350
    moments = type(DATA.moments).of(rows, labels)
    wide = replace(STORED, classifier=fit(classes_of(moments), 0.1))
    warehouse = Warehouse.at(str(tmp_path))
    create_classifier(warehouse, REFERENCE.path, wide, moments)
    assert (warehouse.size(REFERENCE.path) or 0) > 2**20
    np.testing.assert_array_equal(read_classifier(warehouse, REFERENCE).classifier.whitening, wide.classifier.whitening)
    np.testing.assert_array_equal(read_merged(warehouse, REFERENCE)[0].means, moments.means)
