"""The fit of a classifier without Spark, at one shrinkage: what a `classify` job writes, for tests of what is done with it."""

import numpy as np
from orchard_jobs.classifier.class_moments import ClassMoments, merge_all
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import fit
from orchard_jobs.classifier.labelled_rows import rule_of_version
from orchard_jobs.classifier.stored import HeldOut, StoredClassifier, create_classifier
from orchard_jobs.contract.jobs import ClassifierFit
from orchard_jobs.storage import Warehouse


def write_classifier(warehouse: Warehouse, backbone: str, plan: ClassifierFit) -> dict[str, int]:
    """Write the classifier of a plan, and return what its job counts of held-out rows."""
    moments = moments_of(warehouse, plan)
    class_of = dict(plan.class_of)
    held_out = HeldOut(plan.held_out, 2, moments.n, moments.n // 2)
    stored = StoredClassifier(
        model_id=plan.model.model_id,
        backbone=backbone,
        classifier=fit(classes_of(moments, class_of), 0.2),
        n=moments.n,
        shrinkage=0.2,
        temperature=1.0,
        max_distance=float(np.sqrt(moments.dimension)),
        class_of=class_of,
        left_out=dict(plan.left_out),
        sources=tuple(sorted((version.batch_id, version.manifest_digest) for version in plan.versions)),
        held_out=held_out,
    )
    create_classifier(warehouse, plan.model.path, stored, moments)
    return {"held_out_rows": held_out.rows, "held_out_right": held_out.right}


def moments_of(warehouse: Warehouse, plan: ClassifierFit) -> ClassMoments:
    """Return the class moments of the rows of a plan."""
    return merge_all(
        one
        for version in plan.versions
        for one in rule_of_version(warehouse, version, plan.unlabelled).moments_of_files(warehouse, version.files)
    )
