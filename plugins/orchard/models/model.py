"""Models: which one of a kind is current or pinned, and what a PCA model's file holds.

A model's id is a digest of its inputs, never of floats: (backbone, components as set, sorted batch versions). Its file is
created once, so every run that plans the same model projects with the same numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from orchard_jobs.contract.columns import MODELS, PINS, PROMOTIONS
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.jobs import BatchVersion, StagedFile
from orchard_jobs.contract.layout import model_path
from orchard_jobs.contract.manifest import ModelReference
from orchard_jobs.errors import ConfigurationError
from orchard_jobs.parquet import open_parquet, pack, read_parquet
from orchard_jobs.pca.fit import Basis, Components
from orchard_jobs.pca.moments import Moments
from orchard_jobs.schemas import arrow_schema
from orchard_jobs.storage import Warehouse

from orchard.models.kinds import KINDS, PCA, Kind
from orchard.tables.commit_rule import Tables

MergedVersion = tuple[str, str]


@dataclass(frozen=True)
class Promotion:
    """The newest promotion of a backbone: its sequence number, its model, and whether a person holds that model."""

    sequence: int
    model_id: str
    is_held: bool = False


def current_promotion(tables: Tables, backbone: str, kind: Kind = PCA) -> Promotion | None:
    """Return the newest promotion of a backbone's models of a kind, or None when there is no such model yet."""
    columns = ("backbone", "sequence", "model_id", "is_held", "kind")
    rows = [row for row in tables.rows(PROMOTIONS, columns) if row["backbone"] == backbone and kind.owns(row)]
    if not rows:
        return None
    newest = max(rows, key=lambda row: row["sequence"])
    return Promotion(newest["sequence"], newest["model_id"], newest["is_held"])


def current_model(tables: Tables, backbone: str, kind: Kind = PCA) -> ModelReference | None:
    """Return a backbone's current model of a kind as a job reads it, or None."""
    promotion = current_promotion(tables, backbone, kind)
    return model_reference(tables.warehouse, promotion.model_id, kind) if promotion else None


def pinned_models(tables: Tables, backbone: str, kind: Kind = PCA) -> tuple[str, ...]:
    """Return the ids of a backbone's pinned models of a kind, sorted."""
    rows = [row for row in tables.rows(PINS) if row["backbone"] == backbone and kind.owns(row)]
    newest = {row["model_id"]: row["is_pinned"] for row in sorted(rows, key=lambda row: row["sequence"])}
    return tuple(sorted(model_id for model_id, is_pinned in newest.items() if is_pinned))


def known_model(tables: Tables, backbone: str, text: str, kinds: Sequence[Kind] = KINDS) -> tuple[str, Kind]:
    """Return the id and the kind of a backbone's published model that a text names.

    Args:
        tables: the tables.
        backbone: the backbone.
        text: the id, or a beginning of it that no other id has.
        kinds: the kinds to look among.

    Raises:
        ConfigurationError: no model has this id, several have, or it is a model of another backbone.
    """
    found = [one for kind in kinds for one in _begun_by(tables, text, kind)]
    exact = [one for one in found if one[0] == text] or found
    if not exact:
        raise ConfigurationError(f"no model has the id {text!r}: `orchard models` lists the models")
    own = [(model_id, kind) for model_id, its, kind in exact if its == backbone]
    if not own:
        raise ConfigurationError(
            f"model {exact[0][0]} was fitted on features of {exact[0][1]}, the current backbone is {backbone}: "
            "set ORCHARD_BACKBONE (and its engine, weights and views) to that one first"
        )
    if len(own) > 1:
        ids = ", ".join(model_id for model_id, _ in own)
        raise ConfigurationError(f"{len(own)} models have ids that begin with {text!r}: {ids}; give more characters")
    return own[0]


def _begun_by(tables: Tables, text: str, kind: Kind) -> list[tuple[str, str, Kind]]:
    """Return (id, backbone, kind) of the models of a kind whose id begins with a text, sorted by id."""
    rows = tables.rows(kind.models, ("model_id", "backbone"))
    found = {(row["model_id"], row["backbone"]) for row in rows if text and row["model_id"].startswith(text)}
    return [(*one, kind) for one in sorted(found)]


def sources_of(versions: Iterable[BatchVersion]) -> tuple[MergedVersion, ...]:
    """Return the (batch_id, manifest_digest) of batch versions, sorted."""
    return tuple(sorted((version.batch_id, version.manifest_digest) for version in versions))


def model_id_of(backbone: str, components: Components, sources: Iterable[MergedVersion]) -> str:
    """Return the id of the model that is fitted with so many components (as set: 100, or 0.95) on these batch versions."""
    return f"pca-{digest_of([backbone, components, sorted(map(list, sources))])[:16]}"


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted PCA model with the merged moments that it was fitted on."""

    model_id: str
    backbone: str
    basis: Basis
    moments: Moments
    sources: tuple[MergedVersion, ...]


def model_reference(warehouse: Warehouse, model_id: str, kind: Kind = PCA) -> ModelReference:
    """Return a model as a job reads it; of its file, which is large, only the number of components or classes is read."""
    path = model_path(model_id, kind.models)
    with open_parquet(warehouse, path) as file:
        size = file.read([kind.size_column]).column(0)[0].as_py()
    return ModelReference(model_id, path, size if isinstance(size, int) else len(size))


def create_model(warehouse: Warehouse, model: Model) -> Model:
    """Write a model's file unless it is there, and return what the file holds."""
    row = {
        "model_id": model.model_id,
        "backbone": model.backbone,
        "k": model.basis.k_used,
        "n": model.moments.n,
        "mean": model.basis.mean,
        "components": model.basis.components.ravel(),
        "explained_variance": model.basis.explained_variance,
        "explained_variance_ratio": model.basis.explained_variance_ratio,
        "merged_from": [{"batch_id": batch_id, "manifest_digest": digest} for batch_id, digest in model.sources],
        "second_moment": model.moments.upper_triangle,
        "created_at": datetime.now(UTC),
    }
    warehouse.create(model_path(model.model_id), pack(pa.Table.from_pylist([row], arrow_schema(MODELS))))
    return read_model(warehouse, model.model_id)


def read_model(warehouse: Warehouse, model_id: str) -> Model:
    """Return a model from its file."""
    table = read_parquet(warehouse, model_path(model_id))

    def array(name: str) -> Any:
        return table.column(name).combine_chunks().flatten().to_numpy()

    def value(name: str) -> Any:
        return table.column(name)[0].as_py()

    mean = array("mean")
    components = array("components").reshape(value("k"), mean.size)
    basis = Basis(mean, components, array("explained_variance"), array("explained_variance_ratio"))
    sources = tuple((source["batch_id"], source["manifest_digest"]) for source in value("merged_from"))
    return Model(value("model_id"), value("backbone"), basis, Moments(value("n"), mean, array("second_moment")), sources)


def model_file(warehouse: Warehouse, model_id: str, kind: Kind = PCA) -> StagedFile:
    """Return a model's file as `publish` commits it."""
    path = model_path(model_id, kind.models)
    return StagedFile(path, warehouse.size(path) or 0, 1, warehouse.sha256(path))
