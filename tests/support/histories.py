"""A generated history of uploads, messages, runs, faults and changes of mind, at whose end the tables must be a clean run's.

The machine drives the use cases that the DAGs call. A run is a chain of steps, so two runs can take turns, also
between two commits, and be killed at any write.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from orchard.landing_zone.messages import read_messages
from orchard.maintenance.clean import clean
from orchard.maintenance.retire import backbones, retire_backbone
from orchard.models.model import current_promotion
from orchard.models.registry import pin, promote, release, unpin
from orchard.settings import Settings
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.columns import MODELS
from orchard_jobs.errors import ConfigurationError, JobError

from support.clean_run import SECRET, check_against_clean_run, check_network_runs
from support.fake_jobs import BROKEN, LARGE
from support.listed_bucket import ENCRYPTED, OPAQUE
from support.settings import with_variables
from support.storage import Killed, Storage, in_memory
from support.world import DAYS, Steps, World, finish

NAMES = ("a.jpg", "b.jpg", "c/d e.jpg", "é#?%.jpg")
LIMITS = (10, 100, 1000)
BAD_CONTENTS = (BROKEN + b"1", BROKEN + b"2", OPAQUE + b"image 0", OPAQUE + b"image 9", LARGE + b"50", LARGE + b"500")
CONTENTS = (*(b"image %d" % n for n in range(8)), *BAD_CONTENTS, *(ENCRYPTED + b"%d " % n + SECRET for n in range(2)))
BACKBONES = ("efficientnet_lite0", "resnet50")
# With few features, so that a fit takes milliseconds.
SMALL = {name: replace(backbone_named(name), dimension=6) for name in BACKBONES}
STRAYS = ("images/2026-13-01/a.jpg", "images/read me.txt")
ODD_MESSAGES = ("", "no JSON", '{"Event": "s3:TestEvent"}', '{"Records": [{}]}')


class History(RuleBasedStateMachine):
    """Uploads, overwrites, duplicates, deletions, runs in any order and at once, kills between any two writes."""

    make_storage: Callable[[], Storage] = staticmethod(in_memory)
    base_settings: Settings
    lived = 0

    @initialize()
    def begin(self) -> None:
        settings = with_variables(self.base_settings, ORCHARD_COMPONENTS=2, ORCHARD_PIXEL_LIMIT=LIMITS[0])
        self.world = World(self.make_storage(), settings, dict.fromkeys(STRAYS, b"under no batch"))
        self.used = {settings.backbone.name}

    @rule(day=st.sampled_from(DAYS), name=st.sampled_from(NAMES), content=st.sampled_from(CONTENTS))
    def upload(self, day: str, name: str, content: bytes) -> None:
        self.world.upload(f"images/{day}/{name}", content)

    @precondition(lambda self: self.world.bucket)
    @rule(data=st.data(), day=st.sampled_from(DAYS), name=st.sampled_from(NAMES))
    def duplicate(self, data: st.DataObject, day: str, name: str) -> None:
        source = data.draw(st.sampled_from(sorted(self.world.bucket)))
        self.world.upload(f"images/{day}/{name}", self.world.bucket[source])

    @precondition(lambda self: self.world.bucket)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        del self.world.bucket[data.draw(st.sampled_from(sorted(self.world.bucket)))]

    @precondition(lambda self: self.world.messages)
    @rule(data=st.data(), odd=st.sampled_from(ODD_MESSAGES))
    def deliver_messages(self, data: st.DataObject, odd: str) -> None:
        """Some messages come, in any order and any number of times; the others are late or lost."""
        bodies = data.draw(st.lists(st.sampled_from(self.world.messages), max_size=6))
        self.world.run_each(read_messages([*bodies, odd], self.world.settings.landing_zone).batch_ids)

    @rule()
    def reconcile(self) -> None:
        self.world.run_each(self.world.differences())

    @rule(day=st.sampled_from(DAYS))
    def run(self, day: str) -> None:
        self._operate(lambda: finish(self.world.steps(day)))

    @rule(day=st.sampled_from(DAYS), writes=st.integers(0, 14))
    def run_and_kill(self, day: str, writes: int) -> None:
        self._operate(lambda: self._killed(self.world.steps(day), writes))

    @rule(writes=st.integers(0, 10))
    def run_model_and_kill(self, writes: int) -> None:
        self._operate(lambda: self._killed(self.world.model_steps(), writes))

    @rule(day=st.sampled_from(DAYS))
    def run_and_damage(self, day: str) -> None:
        """A staged file is damaged before it is validated."""
        self._operate(lambda: finish(self.world.steps(day, damages=True)))

    @rule(what=st.sampled_from(("rows", "model")))
    def run_model_and_damage(self, what: str) -> None:
        self._operate(lambda: finish(self.world.model_steps(damages=what)))

    @rule(day=st.sampled_from(DAYS))
    def run_beyond_the_budget(self, day: str) -> None:
        kept = self.world.settings
        self.world.settings = with_variables(kept, ORCHARD_TARGET="emr", ORCHARD_MAX_EXECUTOR_HOURS=0.0)
        self._operate(lambda: finish(self.world.steps(day)))
        self.world.settings = kept

    @rule()
    def wake_model(self) -> None:
        """Run pca_model where reconcile_uploads finds work for it."""
        if self.world.has_model_work:
            self._operate(lambda: finish(self.world.model_steps()))

    @rule()
    def run_model(self) -> None:
        self._operate(lambda: finish(self.world.model_steps()))

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
                self.world.upload(f"images/{day}/{name}", content)
            finish(steps)

        self._operate(operate)

    @rule(backbone=st.sampled_from(BACKBONES))
    def change_backbone(self, backbone: str) -> None:
        self.world.settings = replace(self.world.settings, backbone=SMALL[backbone])
        self.used.add(backbone)

    @precondition(lambda self: self.world.settings.images.pixel_limit < LIMITS[-1])
    @rule()
    def raise_the_pixel_limit(self) -> None:
        limit = LIMITS[LIMITS.index(self.world.settings.images.pixel_limit) + 1]
        self.world.settings = with_variables(self.world.settings, ORCHARD_PIXEL_LIMIT=limit)

    @rule(missing=st.sampled_from(("keep", "drop")))
    def change_what_becomes_of_missing_images(self, missing: str) -> None:
        self.world.settings = with_variables(self.world.settings, ORCHARD_MISSING=missing)

    @rule(components=st.sampled_from((1, 2, 3, 0.9)))
    def change_components(self, components: int | float) -> None:
        self.world.settings = with_variables(self.world.settings, ORCHARD_COMPONENTS=components)

    @precondition(lambda self: self.retirable())
    @rule(data=st.data(), writes=st.one_of(st.none(), st.integers(0, 10)))
    def retire_a_backbone(self, data: st.DataObject, writes: int | None) -> None:
        backbone = data.draw(st.sampled_from(self.retirable()))
        self._operate(lambda: self._killed(self.retirement(backbone), writes))

    @rule(day=st.sampled_from(DAYS), turns=st.lists(st.booleans(), max_size=12), is_model=st.booleans())
    def retire_a_backbone_during_its_run(self, day: str, turns: list[bool], is_model: bool) -> None:
        def operate() -> None:
            old = self.world.settings.backbone
            running = self.world.model_steps() if is_model else self.world.steps(day)
            next(running, None)
            self.change_backbone(next(name for name in BACKBONES if name != old.name))
            self._interleave(running, self.retirement(old.id), turns)

        self._operate(operate)

    def retirable(self) -> list[str]:
        """The backbones that have rows and are not current."""
        found = backbones(self.world.tables) if self.world.has_tables else ()
        return [one.backbone for one in found if one.backbone != self.world.settings.backbone.id]

    def retirement(self, backbone: str) -> Steps:
        with suppress(
            ConfigurationError, *(() if self.world.has_tables else (JobError,))
        ):  # there may be no rows, or no table yet
            retire_backbone(self.world.tables, self.world.settings, backbone)
        yield

    @precondition(lambda self: self.models())
    @rule(data=st.data(), choose=st.sampled_from((promote, pin, unpin)), is_settled=st.booleans())
    def choose_model(self, data: st.DataObject, choose: Callable[..., bool], is_settled: bool) -> None:
        choose(self.world.tables, self.world.settings, data.draw(st.sampled_from(self.models())))
        if is_settled:
            self._operate(self.world.settle_model)

    @precondition(lambda self: self.has_model())
    @rule()
    def let_the_model_go(self) -> None:
        release(self.world.tables, self.world.settings)

    def has_model(self) -> bool:
        backbone = self.world.settings.backbone.id
        return self.world.has_tables and current_promotion(self.world.tables, backbone) is not None

    def models(self) -> list[str]:
        """The published models of the current backbone."""
        backbone = self.world.settings.backbone.id
        rows = self.world.tables.rows(MODELS) if self.world.has_tables else ()
        return sorted(row["model_id"] for row in rows if row["backbone"] == backbone)

    def _operate(self, operation: Callable[[], None]) -> None:
        self.world.operation += 1
        operation()

    def _killed(self, steps: Steps, writes: int | None) -> None:
        self.world.storage.writes.left = writes
        try:
            finish(steps)
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
        finish(other)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for backbone in sorted(self.used):
            self.world.settings = replace(self.world.settings, backbone=SMALL[backbone])
            self.world.settle()
            check_against_clean_run(self.world)
        self.check_network_runs()
        type(self).lived += 1

    def check_network_runs(self) -> None:
        """No content goes through a backbone twice by runs that do not overlap; by overlapping ones once a run."""
        check_network_runs(self.world.runs)


class CleanedHistory(History):
    """A history with cleaning of everything that is not in use, however young; a vector that was cleaned is computed again."""

    @precondition(lambda self: self.world.has_tables)
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
