"""Read a model's file as the basis that rows are projected on."""

import numpy as np

from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.errors import JobError
from orchard_jobs.parquet import read_parquet
from orchard_jobs.scatter import Floats
from orchard_jobs.storage import Warehouse


def read_basis(warehouse: Warehouse, model: ModelReference) -> tuple[Floats, Floats]:
    """Return (mean [d], components [k, d]) of a model's file; JobError when the file holds another model."""
    table = read_parquet(warehouse, model.path).select(["model_id", "k", "mean", "components"])
    row = table.slice(0, 1).to_pydict()
    if row["model_id"] != [model.model_id]:
        raise JobError(f"{warehouse.uri_of(model.path)} holds model {row['model_id']}, not {model.model_id}: start a new run")
    mean = np.array(row["mean"][0])
    return mean, np.array(row["components"][0]).reshape(row["k"][0], mean.size)
