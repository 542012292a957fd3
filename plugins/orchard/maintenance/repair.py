"""Mend the tables after files were lost or damaged.

A damaged file is removed from its table, in a commit that makes no batch version. What can be rebuilt from other files is written
at once: moments, `runs`, `captured`, the promotion. What only images can give is then missing from the batch, so its next plan
computes it and keeps the rest. A repair starts no run.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchard_jobs.contract.classifier_tables import CLASS_MOMENTS, CLASSIFIERS, EVALUATIONS, PREDICTIONS
from orchard_jobs.contract.columns import (
    CAPTURED,
    FEATURES,
    MODEL_RUNS,
    MODELS,
    MOMENTS,
    PCA_FEATURES,
    PINS,
    PROMOTIONS,
    QUARANTINE,
    RUNS,
    TABLES,
    Table,
)
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.contract.layout import BackbonePath, ModelPath, parse
from orchard_jobs.errors import DamagedFileError

from orchard.maintenance.rebuilt_rows import captured_rows, class_moments_row, moments_row, newest_promotions, run_row
from orchard.maintenance.verify import Damage, log_faults, verify
from orchard.models.kinds import KINDS, Kind
from orchard.models.publish import publish_file
from orchard.settings import Settings
from orchard.tables.batch_versions import version_key
from orchard.tables.checksums import forget
from orchard.tables.commit_rule import Tables
from orchard.tables.log_files import LogFiles
from orchard.tables.log_paths import is_in_log, log_folder

# A version is in all of these or in none: without the log of one, what the others hold cannot be known.
_OF_VERSIONS = (QUARANTINE, FEATURES, RUNS)
_WITH_THEM = (*_OF_VERSIONS, *(kind.rows for kind in KINDS), MOMENTS, CLASS_MOMENTS)
_OF_MODELS = {kind.models: kind for kind in KINDS}
_OF_ROWS = {kind.rows for kind in KINDS}
# Tables from which others are rebuilt come first.
_ORDER = (
    *(MODELS, CLASSIFIERS, MODEL_RUNS, PINS, PROMOTIONS, FEATURES, QUARANTINE, RUNS),
    *(MOMENTS, CLASS_MOMENTS, CAPTURED, EVALUATIONS, PCA_FEATURES, PREDICTIONS),
)
_MISSING = "rows of images that are no longer listed"


@dataclass(frozen=True)
class Repair:
    """What was, or is to be, mended.

    Attributes:
        mended: what was done, one sentence for each table or file.
        lost: what nothing can bring back.
        batches: the batches that have to run again, sorted.
    """

    mended: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()


def repair(tables: Tables, settings: Settings, *, is_dry: bool) -> Repair:
    """Mend everything that is lost or damaged; say what was done, what is lost for good, and which batches have to run again.

    Args:
        tables: the tables; they may all be gone.
        settings: name the current backbone.
        is_dry: change nothing.
    """
    work = _Mending(tables, settings, is_dry)
    work.mend_logs()
    damaged: dict[str, list[Damage]] = defaultdict(list)
    for damage in verify(tables, is_deep=True):
        if not damage.table:
            work.mend_backbone(damage)
        elif damage.partition or not is_in_log(damage.path):
            damaged[damage.table].append(damage)
    for table in _ORDER:
        if damaged[table.name] or table in work.emptied:
            work.mend(table, damaged[table.name])
    return Repair(tuple(work.mended), tuple(dict.fromkeys(work.lost)), tuple(sorted(work.batches)))


@dataclass(frozen=True)
class _Mending:
    tables: Tables
    settings: Settings
    is_dry: bool
    mended: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    batches: set[str] = field(default_factory=set)
    emptied: set[Table] = field(default_factory=set)

    def mend_logs(self) -> None:
        """Make the logs readable: without damaged files if the other files are enough, else by an empty table."""
        if not any(LogFiles.of(self.tables.warehouse, table).paths for table in TABLES):
            self.mended.append("no table is there: all are created empty, and every batch is computed from the landing zone")
            self.lost.append(f"{_MISSING}; holds, pins, earlier models and the history of runs")
            self._recreate(TABLES)
            return
        for table, faults in log_faults(self.tables):
            is_enough = self._read_without(table, {path for path, _ in faults})
            how = "the log can be read without it" if is_enough else "the log is recreated"
            self.mended.extend(f"{path} {fault}: {how}" for path, fault in faults)
            if not is_enough:
                self.emptied.update(_WITH_THEM if table in _OF_VERSIONS else [table])
        self._recreate(self.emptied)
        if self.emptied & set(_OF_VERSIONS):
            self.mended.append("all batches are computed again; vectors are reused where a job's report still names them")
            self.lost.append(_MISSING)

    def _read_without(self, table: Table, damaged: set[str]) -> bool:
        """Remove a log's damaged files if the others hold all that they held; return whether they do."""
        log = LogFiles.of(self.tables.warehouse, table)
        if damaged <= log.spare:
            if not self.is_dry:
                for path in damaged:
                    self.tables.warehouse.delete(path)
            return True
        if log.has_commit_among(damaged) or not log.has_all_commits():
            return False
        if not self.is_dry:
            log.drop_checkpoints()
        return True

    def _recreate(self, emptied: Iterable[Table]) -> None:
        """Create some tables again, empty, and all that are not there."""
        if self.is_dry:
            return
        for table in emptied:
            LogFiles.of(self.tables.warehouse, table).remove()
            forget(self.tables.warehouse, log_folder(table))
        self.tables.create_all()

    def mend_backbone(self, damage: Damage) -> None:
        """Remove an export and its SHA-256, so that the next preparation exports the backbone again."""
        self.mended.append(f"{damage.path} {damage.fault}: removed; `orchard-jobs prepare` exports the backbone again")
        known = parse(damage.path)
        assert isinstance(known, BackbonePath), "an export has its backbone's path"
        if not self.is_dry:
            for ending in ("onnx", "sha256"):
                self.tables.warehouse.delete(str(BackbonePath(known.backbone, ending)))

    def mend(self, table: Table, damaged: list[Damage]) -> None:
        """Mend one table's files."""
        self.mended.extend(f"{damage.path} {damage.fault}: {_TOLD[table.name]}" for damage in damaged)
        if table in (FEATURES, QUARANTINE):
            self.batches.update(damage.batch_id for damage in damaged)
            self.lost.extend(f"{_MISSING}, of batch {damage.batch_id}" for damage in damaged)
        if table.name in _LOST:
            self.lost.append(_LOST[table.name])
        if self.is_dry:
            return
        if table in _OF_MODELS:
            self._mend_models(_OF_MODELS[table], damaged)
        elif table.name in _REWRITTEN:
            for damage in damaged:
                self._rewrite(table, damage)
        else:
            self._mend_whole(table, damaged)

    def _mend_models(self, kind: Kind, damaged: list[Damage]) -> None:
        """Forget the models whose file is damaged; name those again that an emptied table no longer names."""
        for damage in damaged:
            known = parse(damage.path)
            assert isinstance(known, ModelPath), "a model's file has its own path"
            self.tables.swap(kind.models, [damage.path], forgotten=[f"model/{known.model_id}"])
            # Its path is the model's own, which its DAG may fit again.
            self.tables.warehouse.delete(damage.path)
        if kind.models in self.emptied:
            for path, _ in list(self.tables.warehouse.list(kind.models.name)):
                known = parse(path)
                if isinstance(known, ModelPath):
                    publish_file(self.tables, known.model_id, kind)

    def _rewrite(self, table: Table, damage: Damage) -> None:
        """Replace a damaged file by a row that is rebuilt from other files; do nothing if they are not enough."""
        try:
            row = _REWRITTEN[table.name](self.tables, self.settings, damage)
        except DamagedFileError:
            row = None
        if row is None:
            self.tables.swap(table, [damage.path])
            if table is RUNS:
                self.batches.add(damage.batch_id)
            return
        staged = StagedPartition(table.name, damage.partition, (self.tables.stage(table, [row], damage.partition),))
        self.tables.swap(table, [damage.path], [staged])

    def _mend_whole(self, table: Table, damaged: list[Damage]) -> None:
        """Remove a table's damaged files, and add the rows that can be rebuilt from other tables."""
        paths = [damage.path for damage in damaged]
        forgotten = [version_key(*damage.partition) for damage in damaged] if table in _OF_ROWS else []
        if paths:
            self.tables.swap(table, paths, forgotten=forgotten)
        rows = []
        if table is PROMOTIONS:
            rows = newest_promotions(self.tables, self.settings)
        elif table is CAPTURED:
            rows = captured_rows(self.tables)
        if rows:
            self.tables.swap(table, [], [StagedPartition(table.name, (), (self.tables.stage(table, rows),))])


_REWRITTEN = {RUNS.name: run_row, MOMENTS.name: moments_row, CLASS_MOMENTS.name: class_moments_row}
_TOLD = {
    FEATURES.name: "the batch's next run computes its images again; other rows are kept",
    QUARANTINE.name: "the batch's next run judges its images again; other rows are kept",
    RUNS.name: "its row is rebuilt from the manifest and the rows, or the batch's next run writes one",
    MOMENTS.name: "computed again from the features",
    CLASS_MOMENTS.name: "computed again from the features",
    PCA_FEATURES.name: "the next run of pca_model projects it again",
    PREDICTIONS.name: "the next run of classifier_model predicts it again",
    EVALUATIONS.name: "removed",
    MODELS.name: "removed; if it was the current model, the next run of pca_model fits a new one",
    CLASSIFIERS.name: "removed; if it was the current classifier, the next run of classifier_model fits a new one",
    PROMOTIONS.name: "removed; the newest promotion is rebuilt from the runs of its kind's DAG",
    CAPTURED.name: "computed again from features and models",
    PINS.name: "removed",
    MODEL_RUNS.name: "removed",
}
_LOST = {
    EVALUATIONS.name: "how right earlier predictions were, for batch versions that are not predicted again",
    MODELS.name: "the model whose file was lost; its coordinates of old batches stay until they expire",
    CLASSIFIERS.name: "the classifier whose file was lost",
    PROMOTIONS.name: "earlier promotions, and whether the current model was held; `orchard models promote` holds it again",
    PINS.name: "pins; `orchard models pin` pins a model again",
    MODEL_RUNS.name: "what earlier runs of pca_model and classifier_model decided",
}
