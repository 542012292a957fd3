"""The kinds of model, and what tells one from the other. All else of a model's life is the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchard_jobs.contract.classifier_tables import CLASSIFIERS, PREDICTIONS
from orchard_jobs.contract.columns import MODELS, PCA_FEATURES, Table
from orchard_jobs.contract.jobs import Stage

from orchard.tables.batch_versions import version_key


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        name: its name in `promotions`, `pins` and `model_runs`.
        models: the table of its models, which has a file a model.
        rows: the table of what its models make of each batch.
        stage: the job that makes those rows.
        dag_id: the DAG that fits it.
        size_column: the column of `models` with the number of components, or with the list of classes.
    """

    name: str
    models: Table
    rows: Table
    stage: Stage
    dag_id: str
    size_column: str

    def key(self, table: Table, backbone: str) -> str:
        """Return the key under which a table numbers a backbone's choices; that of PCA is as it was before there were kinds."""
        return version_key(table.name, backbone if self is PCA else version_key(self.name, backbone))

    def owns(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row of `promotions`, `pins` or `model_runs` is of this kind; without a kind it is PCA's."""
        return (row["kind"] or PCA.name) == self.name


PCA = Kind("pca", MODELS, PCA_FEATURES, "project", "pca_model", "k")
CLASSIFIER = Kind("classifier", CLASSIFIERS, PREDICTIONS, "classify", "classifier_model", "classes")
KINDS = (PCA, CLASSIFIER)
KIND_OF_NAME = {kind.name: kind for kind in KINDS}
