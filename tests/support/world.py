"""A bucket and its tables, and the DAGs' own plan, publish and merge code as chains of steps that can take turns or be killed."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from orchard.batch.comparison import PublishedView
from orchard.batch.plan import plan_batch
from orchard.batch.publish import RunFacts, publish_batch
from orchard.batch.reconcile import find_differences
from orchard.landing_zone.listing import ListedObject
from orchard.models.refit import pending_work, plan_model, publish_model, record_model_run
from orchard.settings import Settings
from orchard.tables.batch_versions import PublishedVersions
from orchard.tables.commit_rule import Tables
from orchard.tables.delta_log import TableFile
from orchard_jobs.audit.batch import audit_batch
from orchard_jobs.audit.projection import audit_projection
from orchard_jobs.contract.columns import QUARANTINE, RUNS
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import SupersededError

from support.fake_jobs import FakeJobs, listing
from support.flow import POLICY
from support.storage import Storage

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
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
    """What a manifest was made of: the listing's contents by key, and those of the missing images whose rows stay."""

    listed: Bucket
    missing: Bucket
    vanished: frozenset[str] = frozenset()

    @property
    def contents(self) -> Bucket:
        """The last seen content of every key of the version."""
        return {key: content for key, content in (self.missing | self.listed).items() if key not in self.vanished}


@dataclass
class World:
    """A bucket, the tables, and what has been seen by whom.

    Attributes:
        messages: S3's, of every upload; each may be lost, or come again and again.
        seen: by manifest digest.
    """

    storage: Storage
    settings: Settings
    bucket: Bucket = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    operation: int = 0

    @property
    def tables(self) -> Tables:
        return self.storage.tables

    def upload(self, key: str, content: bytes) -> None:
        """Put an object, and leave S3's message of it."""
        self.bucket[key] = content
        s3 = {"bucket": {"name": self.settings.bucket}, "object": {"key": quote_plus(key)}}
        self.messages.append(json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": s3}]}))

    def of_batch(self, batch_id: str) -> Bucket:
        prefix = self.settings.batch_prefix(batch_id)
        return {key: content for key, content in self.bucket.items() if key.startswith(prefix)}

    def of_version(self, batch_id: str) -> Bucket:
        """Return the contents of a batch's published version."""
        rows = self.tables.rows(RUNS, backbone=self.settings.backbone.id, batch_id=batch_id)
        newest = max(rows, key=lambda row: int(row["version"]), default=None)
        return self.seen[newest["manifest_digest"]].contents if newest else {}

    def last_seen(self, batch_id: str) -> Bucket:
        """Return what a batch comes to that is planned now: what it lists, and the missing images whose rows stay."""
        own = self.of_batch(batch_id)
        return own if own and self.settings.missing == "drop" else self.of_version(batch_id) | own

    def steps(self, batch_id: str) -> Steps:
        """Run image_batches, a pause after each task; the bucket and the settings may change in the pauses."""
        own, settings = self.of_batch(batch_id), self.settings
        if not own and PublishedVersions.load(self.tables, settings.backbone.id, batch_id).is_whole(batch_id):
            return  # wait_for_uploads skips an empty batch
        run, jobs = Run(self.operation), FakeJobs(self.tables, self.bucket)
        self.runs.append(run)
        try:
            seen = Seen(own, {key: content for key, content in self.last_seen(batch_id).items() if key not in own})
            head = plan_batch(self.tables, settings, batch_id, listing(own))
            yield
            if head is None:
                return
            self.seen.setdefault(head.digest, seen)
            featurized = jobs.featurize(head)
            run.computed = tuple((head.backbone.id, content) for content in jobs.network_runs)
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
        settings, backbone = self.settings, self.settings.backbone.id
        decided = plan_model(self.tables, settings)
        yield
        if decided.projection is None:
            if decided.action != "nothing":
                record_model_run(self.tables, backbone, decided, f"model {self.operation}")
            return
        report = FakeJobs(self.tables, {}).project(decided.projection)
        yield
        audit_projection(self.tables.warehouse, decided.projection, report).raise_if_failed()
        with suppress(SupersededError):
            publish_model(self.tables, decided, report, f"model {self.operation}")

    def differences(self) -> list[str]:
        """Return the batches that reconcile_uploads finds."""
        view = PublishedView.load(self.tables, self.settings)
        found = find_differences(self._listed, self.settings, view.differs)
        return sorted({*found.batch_ids, *view.versions.half_way})

    def _listed(self, prefix: str) -> list[ListedObject]:
        return listing({key: content for key, content in self.bucket.items() if key.startswith(prefix)})

    def run_each(self, batch_ids: Iterable[str]) -> None:
        for batch_id in batch_ids:
            self.operation += 1
            finish(self.steps(batch_id))

    def settle(self) -> None:
        """Reconcile until nothing differs, then run pca_model until it is idle."""
        for _ in range(4):
            different = self.differences()
            self.run_each(different)
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
            finish(self.model_steps())
        raise AssertionError(f"pca_model is never idle: {pending_work(self.tables, self.settings)}")


def finish(steps: Steps) -> None:
    for _ in steps:
        pass
