"""A generated history of uploads, runs and faults, and the claim that the tables depend on what is in the bucket alone.

The machine drives the DAGs' own plan, publish and merge code. Its reference is one clean run of each batch over the last seen
content of every key. A run is a chain of steps, so two runs can take turns, also between two commits, and be killed at any write.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from fake_jobs import BROKEN, OPAQUE, FakeJobs, listing
from flow import POLICY
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from orchard.batches import plan_batch
from orchard.choices import pin, promote, release, unpin
from orchard.clean import clean
from orchard.comparison import PublishedView
from orchard.models import current_promotion, pinned_models, read_model
from orchard.publish import RunFacts, publish_batch
from orchard.refit import ModelPlan, pending_work, plan_model, publish_model, record_model_run
from orchard.settings import Settings
from orchard.table_log import TableFile
from orchard.tables import Tables
from orchard.versions import PublishedVersions
from orchard_jobs.audit.batch import audit_batch
from orchard_jobs.audit.projection import audit_projection
from orchard_jobs.contract.columns import FEATURES, MODELS, PCA_FEATURES, QUARANTINE, RUNS, Table
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import SupersededError
from orchard_jobs.pca.fit import Spectrum
from storage import Killed, Storage, in_memory

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
NAMES = ("a.jpg", "b.jpg", "c/d e.jpg", "é#?%.jpg")
CONTENTS = (*(b"image %d" % n for n in range(8)), BROKEN + b"1", BROKEN + b"2", OPAQUE + b"image 0", OPAQUE + b"image 9")
PROVENANCE = ("manifest_digest", "computed_in", "jobs_version", "uploaded_at")
Bucket = dict[str, bytes]
Steps = Iterator[None]


@dataclass
class Run:
    """One run of image_batches for one batch: its steps, and what it put through the network.

    Attributes:
        began: the number of the operation in which it began.
        ended: that in which it ended, well or killed.
        computed: (backbone, content) that its featurize job put through the network; a killed job's work is lost with it.
    """

    began: int
    ended: int = 0
    computed: tuple[tuple[str, str], ...] = ()


@dataclass
class Seen:
    """What a manifest was made of: the listing's contents by key."""

    contents: Mapping[str, bytes]
    vanished: frozenset[str] = frozenset()


@dataclass
class World:
    """A bucket, the tables, and what has been seen by whom."""

    storage: Storage
    settings: Settings
    bucket: Bucket = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    operation: int = 0

    @property
    def tables(self) -> Tables:
        return self.storage.tables

    def of_batch(self, batch_id: str) -> Bucket:
        prefix = self.settings.batch_prefix(batch_id)
        return {key: content for key, content in self.bucket.items() if key.startswith(prefix)}

    def steps(self, batch_id: str) -> Steps:
        """Run image_batches, a pause after each task; the bucket may change in the pauses."""
        own = self.of_batch(batch_id)
        if not own and PublishedVersions.load(self.tables, self.settings.backbone.id, batch_id).is_whole(batch_id):
            return  # wait_for_uploads skips an empty batch
        settings = self.settings
        run, jobs = Run(self.operation), FakeJobs(self.tables, self.bucket)
        self.runs.append(run)
        try:
            head = plan_batch(self.tables, settings, batch_id, listing(own))
            yield
            if head is None:
                return
            self.seen.setdefault(head.digest, Seen(own))
            featurized = jobs.featurize(head)
            run.computed = tuple((settings.backbone.id, content) for content in jobs.network_runs)
            self._note_vanished(head)
            yield
            reduced = jobs.reduce(head, featurized)
            yield
            audit_batch(self.tables.warehouse, head, featurized, reduced, POLICY).raise_if_failed()
            yield
            publish_batch(self.tables, head, featurized, reduced, RunFacts(f"run {len(self.runs)}", "local", "passed"))
        except SupersededError:
            return
        finally:
            run.ended = self.operation

    def _note_vanished(self, head: ManifestHead) -> None:
        """What counts is what the first finished job of a manifest read."""
        staged = FakeJobs(self.tables, {}).featurize(head).of_table(QUARANTINE.name)
        files = [TableFile(file.path, file.size_bytes, file.rows, {}) for file in staged[0].files]
        rows = self.tables.rows_of(files)
        gone = {row["image_uri"].removeprefix("s3://landing/") for row in rows if row["reason"] == "vanished"}
        self.seen[head.digest].vanished = frozenset(gone)

    def model_steps(self) -> Steps:
        """Run pca_model, a pause after each task."""
        decided = plan_model(self.tables, self.settings)
        yield
        if decided.projection is None:
            if decided.action != "nothing":
                record_model_run(self.tables, self.settings.backbone.id, decided, f"model {self.operation}")
            return
        yield from self._project(decided)

    def _project(self, decided: ModelPlan) -> Steps:
        assert decided.projection is not None
        report = FakeJobs(self.tables, {}).project(decided.projection)
        yield
        audit_projection(self.tables.warehouse, decided.projection, report).raise_if_failed()
        try:
            publish_model(self.tables, decided, report, f"model {self.operation}")
        except SupersededError:
            return

    def settle(self) -> None:
        """Reconcile until nothing differs, then run pca_model until it is idle."""
        for _ in range(4):
            view = PublishedView.load(self.tables, self.settings)
            listed = [day for day in DAYS if self.of_batch(day)]
            different = {day for day in listed if view.differs(day, listing(self.of_batch(day)))} | set(view.versions.half_way)
            for day in sorted(different):
                self.operation += 1
                _finish(self.steps(day))
            if not different:
                break
        else:
            raise AssertionError("reconciling does not come to an end")
        self.settle_model()

    def settle_model(self) -> None:
        for _ in range(4):
            if pending_work(self.tables, self.settings) is None:
                return
            self.operation += 1
            _finish(self.model_steps())
        raise AssertionError(f"pca_model is never idle: {pending_work(self.tables, self.settings)}")

    def last_seen(self) -> Bucket:
        """Return the last content of every key that a published version has read, and what is listed now."""
        found: Bucket = {}
        versions = sorted(self.tables.rows(RUNS, backbone=self.settings.backbone.id), key=lambda row: row["version"])
        for row in versions:
            seen = self.seen[row["manifest_digest"]]
            found |= seen.contents
            found = {key: content for key, content in found.items() if key not in seen.vanished}
        return found | {key: content for day in DAYS for key, content in self.of_batch(day).items()}


def _finish(steps: Steps) -> None:
    for _ in steps:
        pass


class History(RuleBasedStateMachine):
    """Uploads, overwrites, duplicates, deletions, runs in any order and at once, kills between any two writes."""

    make_storage: Callable[[], Storage] = staticmethod(in_memory)
    base_settings: Settings
    lived = 0

    @initialize()
    def begin(self) -> None:
        self.world = World(self.make_storage(), replace(self.base_settings, components=2))
        self.used = {self.world.settings.backbone_name}

    @rule(day=st.sampled_from(DAYS), name=st.sampled_from(NAMES), content=st.sampled_from(CONTENTS))
    def upload(self, day: str, name: str, content: bytes) -> None:
        self.world.bucket[f"images/{day}/{name}"] = content

    @precondition(lambda self: self.world.bucket)
    @rule(data=st.data(), day=st.sampled_from(DAYS), name=st.sampled_from(NAMES))
    def duplicate(self, data: st.DataObject, day: str, name: str) -> None:
        source = data.draw(st.sampled_from(sorted(self.world.bucket)))
        self.world.bucket[f"images/{day}/{name}"] = self.world.bucket[source]

    @precondition(lambda self: self.world.bucket)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        del self.world.bucket[data.draw(st.sampled_from(sorted(self.world.bucket)))]

    @rule(day=st.sampled_from(DAYS))
    def run(self, day: str) -> None:
        self._operate(lambda: _finish(self.world.steps(day)))

    @rule(day=st.sampled_from(DAYS), writes=st.integers(0, 14))
    def run_and_kill(self, day: str, writes: int) -> None:
        self._operate(lambda: self._killed(self.world.steps(day), writes))

    @rule(writes=st.integers(0, 10))
    def run_model_and_kill(self, writes: int) -> None:
        self._operate(lambda: self._killed(self.world.model_steps(), writes))

    @rule()
    def run_model(self) -> None:
        self._operate(lambda: _finish(self.world.model_steps()))

    @rule(days=st.tuples(*[st.sampled_from(DAYS)] * 2), turns=st.lists(st.booleans(), max_size=24), is_model=st.booleans())
    def run_two_at_once(self, days: tuple[str, str], turns: list[bool], is_model: bool) -> None:
        """Two runs of one batch, a backfill beside a daily run, or pca_model beside either."""
        other = self.world.model_steps() if is_model else self.world.steps(days[1])
        self._operate(lambda: self._interleave(self.world.steps(days[0]), other, turns))

    @rule(
        day=st.sampled_from(DAYS),
        pauses=st.integers(0, 4),
        name=st.sampled_from(NAMES),
        content=st.sampled_from((None, *CONTENTS)),
    )
    def change_during_a_run(self, day: str, pauses: int, name: str, content: bytes | None) -> None:
        def operate() -> None:
            steps = self.world.steps(day)
            for _, _ in zip(range(pauses), steps, strict=False):
                pass
            if content is None:
                self.world.bucket.pop(f"images/{day}/{name}", None)
            else:
                self.world.bucket[f"images/{day}/{name}"] = content
            _finish(steps)

        self._operate(operate)

    @rule(backbone=st.sampled_from(("efficientnet_lite0", "resnet50")))
    def change_backbone(self, backbone: str) -> None:
        self.world.settings = replace(self.world.settings, backbone_name=backbone)
        self.used.add(backbone)

    @precondition(lambda self: self.models())
    @rule(data=st.data(), choose=st.sampled_from((promote, pin, unpin)), is_settled=st.booleans())
    def choose_model(self, data: st.DataObject, choose: Callable[..., bool], is_settled: bool) -> None:
        choose(self.world.tables, self.world.settings, data.draw(st.sampled_from(self.models())))
        if is_settled:
            self._operate(self.world.settle_model)

    @precondition(lambda self: current_promotion(self.world.tables, self.world.settings.backbone.id))
    @rule()
    def let_the_model_go(self) -> None:
        release(self.world.tables, self.world.settings)

    def models(self) -> list[str]:
        """The published models of the current backbone."""
        backbone = self.world.settings.backbone.id
        return sorted(row["model_id"] for row in self.world.tables.rows(MODELS) if row["backbone"] == backbone)

    def _operate(self, operation: Callable[[], None]) -> None:
        self.world.operation += 1
        operation()

    def _killed(self, steps: Steps, writes: int) -> None:
        self.world.storage.writes.left = writes
        try:
            _finish(steps)
        except Killed:
            note("killed")
        finally:
            self.world.storage.writes.left = None

    def _interleave(self, one: Steps, other: Steps, turns: list[bool]) -> None:
        """Let two runs take turns: after each task, and where a turn says so between the load and the commit of one's publish."""
        drawn, writes = iter(turns), self.world.storage.writes

        def let_in() -> None:
            writes.before_commit = lambda: None  # nobody comes in between the other's load and commit
            while next(drawn, False):
                next(other, None)
            writes.before_commit = let_in

        try:
            writes.before_commit = let_in
            for _ in one:
                let_in()
        finally:
            writes.before_commit = lambda: None
        _finish(other)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for backbone in sorted(self.used):
            self.world.settings = replace(self.world.settings, backbone_name=backbone)
            self.world.settle()
            check_against_clean_run(self.world)
        self.check_network_runs()
        type(self).lived += 1

    def check_network_runs(self) -> None:
        """No content goes through a backbone's network twice by runs that do not overlap; by overlapping ones once a run."""
        check_network_runs(self.world.runs)


class CleanedHistory(History):
    """A history with cleaning of everything that is not in use, however young; a vector that was cleaned is computed again."""

    @rule(writes=st.one_of(st.none(), st.integers(0, 12)))
    def clean(self, writes: int | None) -> None:
        later = datetime.now(UTC) + timedelta(hours=1)
        self.world.storage.writes.left = writes
        try:
            clean(self.world.tables, self.world.settings, later, timedelta())
        except Killed:
            note("killed")
        finally:
            self.world.storage.writes.left = None

    def check_network_runs(self) -> None:
        """Nothing is claimed."""


def check_against_clean_run(world: World) -> None:
    """Hold the settled tables against one clean run of each batch over the last seen content of every key."""
    bucket, backbone = world.last_seen(), world.settings.backbone.id
    clean = World(in_memory(), world.settings, bucket)
    clean.settle()
    for table in (FEATURES, QUARANTINE):
        assert _published(world, table) == _published(clean, table)
    ran = {row["batch_id"] for row in world.tables.rows(RUNS, backbone=backbone)}
    # A batch whose every image had vanished when it was read, and that lists nothing since, has a version without an image.
    listed_or_kept = {row["batch_id"] for table in (FEATURES, QUARANTINE) for row in _published(world, table)}
    assert ran & (listed_or_kept | {day for day in DAYS if world.of_batch(day)}) == {
        row["batch_id"] for row in clean.tables.rows(RUNS, backbone=backbone)
    }
    # A batch that lists nothing and whose version was cut off before its first row has nothing to go on with.
    for day in {day for day in DAYS if world.of_batch(day)} | ran:
        assert plan_batch(world.tables, world.settings, day, listing(world.of_batch(day))) is None
    _check_model(world, clean)


def _published(world: World, table: Table) -> list[dict[str, Any]]:
    rows = world.tables.rows(table, backbone=world.settings.backbone.id)
    # A batch that lists nothing is not planned, so the row of an image that had vanished stays until something is listed.
    found = (row for row in rows if row.get("reason") != "vanished" or world.of_batch(row["batch_id"]))
    kept = ({name: value for name, value in row.items() if name not in PROVENANCE} for row in found)
    return sorted(kept, key=lambda row: (row["batch_id"], row["image_uri"]))


def _check_model(world: World, clean: World) -> None:
    """Before a refit the model keeps enough; after one on both sides, moments and subspaces are equal."""
    backbone = world.settings.backbone.id
    promotion = current_promotion(world.tables, backbone)
    if current_promotion(clean.tables, backbone) is None:
        # Nothing can be fitted where all rows are alike; a model of former days stays.
        assert len({tuple(row["features"]) for row in world.tables.rows(FEATURES, backbone=backbone)}) <= 1
        if promotion is not None:
            _check_rows(world)
        return
    assert promotion is not None
    fresh = Spectrum.of(_refitted(clean).moments)
    _check_rows(world)
    release(world.tables, world.settings)
    world.settle_model()
    promotion = current_promotion(world.tables, backbone)
    assert promotion is not None
    kept = fresh.gain(read_model(world.tables.warehouse, promotion.model_id).basis.components, world.settings.components)
    assert kept <= world.settings.refit_gain + 1e-9
    _check_rows(world)
    one, other = _refitted(world), _refitted(clean)
    _check_rows(world)
    difference = np.linalg.norm(one.moments.second_moment - other.moments.second_moment)
    assert difference <= 1e-12 * np.linalg.norm(other.moments.second_moment)
    assert one.moments.n == other.moments.n
    k = one.basis.k_used
    assert k == other.basis.k_used
    values = np.append(fresh.eigenvalues, 0.0)
    gap = (values[k - 1] - values[k]) / values[0]
    if gap >= 1e-10:
        w, v = one.basis.components, other.basis.components
        assert np.linalg.norm(w - w @ v.T @ v, 2) <= 1e-12 + 1e-14 / gap


def _refitted(world: World) -> Any:
    """Fit anew whatever the gain, and return the model."""
    kept = world.settings
    world.settings = replace(kept, refit_gain=-10.0)
    try:
        world.operation += 1
        _finish(world.model_steps())
    finally:
        world.settings = kept
    promotion = current_promotion(world.tables, kept.backbone.id)
    assert promotion is not None
    return read_model(world.tables.warehouse, promotion.model_id)


def _check_rows(world: World) -> None:
    """The current model and each pinned one have the rows of every published batch's current version."""
    backbone = world.settings.backbone.id
    promotion = current_promotion(world.tables, backbone)
    assert promotion is not None
    features = {(row["image_uri"], row["manifest_digest"]) for row in world.tables.rows(FEATURES, backbone=backbone)}
    for model_id in {promotion.model_id, *pinned_models(world.tables, backbone)}:
        rows = list(world.tables.rows(PCA_FEATURES, model_id=model_id))
        assert {(row["image_uri"], row["manifest_digest"]) for row in rows} == features
        assert len(rows) == len(features)


def check_network_runs(runs: list[Run]) -> None:
    """No content goes through a backbone's network twice by runs that do not overlap; by overlapping ones once a run."""
    done: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        assert len(run.computed) == len(set(run.computed))
        for content in run.computed:
            for earlier in done.setdefault(content, []):
                assert earlier.began <= run.ended
                assert run.began <= earlier.ended
            done[content].append(run)
