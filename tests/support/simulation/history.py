"""A history of uploads, runs, faults and changes of mind, drawn from one seed; at its end the tables must be a clean run's.

An operation lets some actors loose on one store: runs of image_batches and pca_model, a cleaning, a person's commands, a
reader, an uploader. They take turns at each call of the store, and the weather decides which calls fail.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

from orchard.maintenance.verify import verify
from orchard.settings import Settings
from orchard.tables.batch_versions import BatchVersions
from orchard_jobs.contract.columns import TABLES

from support.changed_settings import with_variables
from support.clean_run import check_against_clean_run, check_cached_moments, check_network_runs
from support.simulation import operations
from support.simulation.determinism import determined
from support.simulation.scheduler import Actor, Killed
from support.simulation.store import Storage
from support.simulation.store_calls import Weather
from support.simulation.tasks import Dangers, RunFailed
from support.simulation.vendor import Vendor
from support.simulation.world import DAYS, World

STRAYS = ("images/2026-13-01/a.jpg", "images/read me.txt")
# Most are short: few operations show what two runs do to each other. The long ones show what stays behind.
OPERATIONS = (1, 2, 2, 3, 6)
TARGETS = ("local", "emr_serverless", "emr", "databricks")
JUMPS = tuple(timedelta(days=days) for days in (0.1, 1, 8, 40))


@dataclass(frozen=True)
class Climate:
    """What a seed's history has to bear: of the faults, some in some histories, so that each is seen alone, too.

    Attributes:
        weather: how often calls of the store fail.
        dangers: what happens to tries.
        target: where jobs run.
        cleans: whether files are removed.
        damages: whether staged files are damaged.
        backbones: the names of those that are current by turns.
        predicts: whether there is a classifier.
    """

    weather: Weather
    dangers: Dangers
    target: str
    cleans: bool
    damages: bool
    backbones: tuple[str, ...]
    predicts: bool

    @classmethod
    def drawn(cls, draw: Random) -> "Climate":
        weather = Weather.drawn(draw) if draw.random() < 0.6 else Weather.calm(draw)
        dangers = Dangers.drawn(draw)
        cleans, damages, switches = (draw.random() < share for share in (0.4, 0.2, 0.25))
        backbones = operations.BACKBONES if switches else operations.BACKBONES[:1]
        return cls(weather, dangers, draw.choice(TARGETS), cleans, damages, backbones, draw.random() < 0.4)

    @property
    def is_harmless(self) -> bool:
        """Whether nobody loses work that was finished, so that none is done twice."""
        return self.weather.is_calm and not (self.cleans or self.damages or self.dangers.tried_twice)


class History:
    """One seed's history on one store.

    Attributes:
        seed: draws everything.
        climate: what the history has to bear.
        operations: how many it has.
        world: the bucket and the tables.
    """

    def __init__(self, seed: int, settings: Settings, storage: Storage) -> None:
        self.seed, self.storage = seed, storage
        draw = Random(f"{seed} climate")
        self.climate, self.operations = Climate.drawn(draw), draw.choice(OPERATIONS)
        first = operations.SMALL[operations.BACKBONES[0]]
        chosen = with_variables(settings, ORCHARD_COMPONENTS=2, ORCHARD_PIXEL_LIMIT=operations.LIMITS[0])
        self.world = World.of(storage, replace(chosen, backbone=first), dict.fromkeys(STRAYS, b"under no batch"))
        self.calls, self.used = storage.calls, {first.name}
        if self.climate.target != "local":
            takes_tokens = self.climate.target != "emr"
            self.world.vendor = Vendor(self.calls, takes_tokens, lambda job: self.world.tasks.dangers.mark(job, draw))

    def live(self) -> None:
        """Live it all, and hold its tables against one clean run of each batch."""
        with determined(self.storage, self.seed), closing(self.calls.scheduler):
            for number in range(self.operations):
                self._operate(Random(f"{self.seed} operation {number}"))
            self._check()

    def _operate(self, draw: Random) -> None:
        """Change something, then let actors loose until all are over."""
        self.world.operation += 1
        operations.change(self.world, draw, self.climate.backbones)
        self.used.add(self.world.settings.backbone.name)
        if self.climate.predicts and self.world.has_tables:
            operations.promote_one(self.world)
        if draw.random() < 0.3:
            self.calls.clock.advance(draw.choice(JUMPS).total_seconds())
        kind = draw.random()
        if self.climate.damages and kind < 0.2:
            self._damage(draw)
        elif self.climate.cleans and self.world.has_tables and kind < 0.25:
            self._let_loose([("cleaner", lambda: operations.clean_everything(self.world))], draw)
        elif self.climate.cleans and kind < 0.6:
            self._let_loose([*operations.late_work(self.world, draw), *self._others(draw, (0, 0, 1))], draw)
        elif kind < 0.65:
            self._let_loose([*operations.race(self.world, draw), *self._others(draw, (0, 0, 1))], draw)
        elif self.world.has_tables and kind < 0.75:
            self._let_loose([*operations.race_of_models(self.world, draw), *self._others(draw, (0, 1))], draw)
        else:
            self._let_loose(self._others(draw, (1, 2, 2, 3)), draw)

    def _others(self, draw: Random, counts: tuple[int, ...]) -> list[tuple[str, operations.Work]]:
        return [operations.drawn_actor(self.world, draw, self.climate.cleans) for _ in range(draw.choice(counts))]

    def _damage(self, draw: Random) -> None:
        """A staged file, or a model, is damaged before it is validated."""
        what = draw.choice(("batch", "rows", "model"))
        if what == "batch":
            self.world.run_batch(draw.choice(DAYS), damages=True)
        else:
            self.world.run_model(damages=what)

    def _let_loose(self, works: list[tuple[str, operations.Work]], draw: Random, is_calm: bool = False) -> None:
        scheduler, tasks = self.calls.scheduler, self.world.tasks
        weather, tasks.dangers = (Weather(), Dangers()) if is_calm else (self.climate.weather, self.climate.dangers)
        tasks.draw, tasks.can_fail = draw, not is_calm and (self.climate.damages or not weather.is_calm)
        self.calls.begin(draw, weather)
        for number, (name, work) in enumerate(works):
            actor = Actor(f"{number} {name}", work)
            scheduler.spawn(actor if name.startswith(operations.WITH_TASKS) else tasks.dangers.mark(actor, draw))
        scheduler.run(draw, draw.choice((0.0, 0.3, 0.7, 0.95)))
        self.calls.end()
        self._judge(scheduler.take_over())

    def _judge(self, actors: list[Actor]) -> None:
        """Let no error pass that no fault explains."""
        can_fail = self.world.tasks.dangers.killed > 0 or self.world.tasks.can_fail
        for actor in actors:
            if isinstance(actor.error, RunFailed) and not can_fail:
                raise actor.error
            if actor.error is not None and not isinstance(actor.error, RunFailed):
                self.world.tasks.check(actor.error)
                is_reader = actor.name.endswith("reader") and not isinstance(actor.error, Killed)
                assert self.world.tasks.can_fail or not is_reader, f"a reader failed although nothing did: {actor.error}"
        if self.world.vendor is not None:
            self.world.vendor.check_turns()

    def _check(self) -> None:
        for backbone in sorted(self.used):
            self.world.settings = replace(self.world.settings, backbone=operations.SMALL[backbone])
            self._let_loose([("run until nothing differs", self.world.settle)], Random(f"{self.seed} end"), is_calm=True)
            check_against_clean_run(self.world, with_refits=self.seed % 4 == 0)
            operations.check_rows(BatchVersions.load(self.world.calm, self.world.settings.backbone.id))
            operations.check_choices(self.world.calm, self.world.settings.backbone.id)
            if self.climate.is_harmless:
                check_cached_moments(self.world)
        self._check_files()
        if self.climate.is_harmless:
            check_network_runs(self.world.runs)

    def _check_files(self) -> None:
        """Every file that a table names is there, as it was written."""
        found = verify(self.world.calm, is_deep=True)
        if self.storage.is_in_memory:  # whose logs are no files
            found = tuple(damage for damage in found if not damage.path.endswith("/_delta_log"))
        assert found == (), found
        tables = self.world.calm
        for table in TABLES:
            for file in tables.load(table).files():
                assert tables.warehouse.size(file.path) == file.size_bytes, f"{table.name} names {file.path}, which is gone"
