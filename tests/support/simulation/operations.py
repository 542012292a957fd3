"""What happens in a history: changes between runs, and actors that are let loose on one store."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import pairwise
from random import Random

from orchard.landing_zone.messages import read_messages
from orchard.maintenance.clean import clean
from orchard.maintenance.retire import backbones, retire_backbone
from orchard.models.kinds import CLASSIFIER, PCA
from orchard.models.model import current_promotion
from orchard.models.registry import pin, promote, release, unpin
from orchard.tables.batch_versions import BatchVersions
from orchard.tables.commit_rule import Tables
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.columns import MODELS, PROMOTIONS
from orchard_jobs.contract.digests import digest_of
from orchard_jobs.errors import ConfigurationError

from support.changed_settings import with_variables
from support.clean_run import SECRET
from support.fake_jobs import BROKEN, LARGE
from support.listed_bucket import ENCRYPTED, OPAQUE
from support.promoted_classifier import promote_classifier
from support.simulation.run_records import Begun
from support.simulation.scheduler import Actor
from support.simulation.world import DAYS, World

NAMES = ("a.jpg", "b/b.jpg", "c/d e.jpg", "c/é#?%.jpg")
LIMITS = (10, 100, 1000)
BAD_CONTENTS = (BROKEN + b"1", BROKEN + b"2", OPAQUE + b"image 0", OPAQUE + b"image 9", LARGE + b"50", LARGE + b"500")
CONTENTS = (*(b"image %d" % n for n in range(8)), *BAD_CONTENTS, *(ENCRYPTED + b"%d " % n + SECRET for n in range(2)))
BACKBONES = ("efficientnet_lite0", "resnet50")
# With few features, so that a fit takes milliseconds.
SMALL = {name: replace(backbone_named(name), dimension=6) for name in BACKBONES}
ODD_MESSAGES = ("", "no JSON", '{"Event": "s3:TestEvent"}', '{"Records": [{}]}')
# Longer than any operation with all its jumps of the clock.
RETENTION = timedelta(days=7)
Work = Callable[[], None]
Actors = Iterator[tuple[str, Work]]


def change(world: World, draw: Random, backbones_used: tuple[str, ...]) -> None:
    """Upload and delete some objects, and now and then change a setting."""
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        change_object(world, draw)
    if draw.random() < 0.2:
        world.settings = replace(world.settings, backbone=SMALL[draw.choice(backbones_used)])
    if draw.random() < 0.3:
        draw.choice((raise_the_pixel_limit, change_missing, change_components, let_the_model_go, change_unlabelled))(world, draw)


def promote_one(world: World) -> None:
    """Let a person promote a classifier where there is none yet, so that batches are predicted from now on."""
    backbone = world.settings.backbone.id
    if current_promotion(world.calm, backbone, CLASSIFIER) is None:
        promote_classifier(world.calm, world.settings, f"lda-{digest_of(backbone)[:16]}")


def change_object(world: World, draw: Random, day: str | None = None) -> None:
    """Upload, copy or delete an object."""
    key = f"images/{day or _day(draw)}/{draw.choice(NAMES)}"
    kind, there = draw.random(), sorted(world.bucket.contents)
    if kind < 0.2:
        world.bucket.remove(draw.choice(there) if there and kind < 0.1 else key)
    elif kind < 0.4 and there:
        world.upload(key, world.bucket.contents[draw.choice(there)])
    else:
        world.upload(key, draw.choice(CONTENTS))


def raise_the_pixel_limit(world: World, draw: Random) -> None:
    """Let images count that were too large."""
    now = world.settings.images.pixel_limit
    world.settings = with_variables(world.settings, ORCHARD_PIXEL_LIMIT=min([one for one in LIMITS if one > now], default=now))


def change_missing(world: World, draw: Random) -> None:
    """Keep, or drop, the rows of images that are gone."""
    world.settings = with_variables(world.settings, ORCHARD_MISSING=draw.choice(("keep", "drop")))


def change_unlabelled(world: World, draw: Random) -> None:
    """Let another label mean none."""
    world.settings = with_variables(world.settings, ORCHARD_UNLABELLED=draw.choice(("", "b", "c")))


def change_components(world: World, draw: Random) -> None:
    """Ask for other models."""
    world.settings = with_variables(world.settings, ORCHARD_COMPONENTS=draw.choice((1, 2, 3, 0.9)))


def let_the_model_go(world: World, draw: Random) -> None:
    """Release the current model, where there is one."""
    if world.has_tables and current_promotion(world.calm, world.settings.backbone.id) is not None:
        release(world.calm, world.settings)


def race(world: World, draw: Random) -> list[tuple[str, Work]]:
    """Draw runs of one batch that see different objects, as two schedulers start them."""
    day = _day(draw)

    def run(delay: int) -> None:
        for _ in range(delay):
            world.storage.calls.scheduler.pause()
        change_object(world, draw, day)
        world.run_batch(day)

    delays = [0, *(draw.choice((1, 8, 25, 50)) for _ in range(draw.choice((1, 1, 2))))]
    return [(f"run {day}", partial(run, delay)) for delay in delays]


def late_work(world: World, draw: Random) -> list[tuple[str, Work]]:
    """Leave a run until all that it wrote is old; then it goes on, or another does its work, and somebody cleans and reads."""
    day = _day(draw)
    found: list[tuple[str, Work]] = [(f"run {day}", leave_a_run(world, draw, day))]
    world.storage.calls.clock.advance(1.2 * RETENTION.total_seconds())
    if world.has_tables:
        found += [("cleaner", lambda: clean_beside_runs(world)), ("reader", lambda: read_what_is_published(world, draw))]
    return found


def leave_a_run(world: World, draw: Random, day: str) -> Work:
    """Begin a run and leave it; return what comes later."""
    left = draw.choice(("planned", "computed", "resumed", "half-way", "published"))
    if left == "half-way":
        world.run_batch(day)
        change_object(world, draw, day)
    begun = world.begin_batch(day, world.settings, is_planned_only=left == "planned")
    if begun is not None and left == "resumed":
        return partial(world.end_batch, begun, is_late=True)
    if begun is not None and left == "half-way":
        publish_half_way(world, begun, draw)
    if begun is not None and left == "published":
        world.end_batch(begun)
        change_object(world, draw, day)
    return partial(world.run_batch, day)


def publish_half_way(world: World, begun: Begun, draw: Random) -> None:
    """Kill a run between two commits of its publish."""
    scheduler = world.storage.calls.scheduler
    scheduler.spawn(Actor("left", lambda: world.publish_batch(begun, "passed"), dies_at_write=draw.randint(1, 4)))
    scheduler.run(draw, 1.0)
    scheduler.take_over()


def race_of_models(world: World, draw: Random) -> list[tuple[str, Work]]:
    """Draw a run of pca_model, which often refits, and who else chooses a model."""
    if draw.random() < 0.7:
        let_the_model_go(world, draw)
        change_components(world, draw)
    choices = [(name, work) for name, work in _of_models(world, draw) if name.startswith("choose")]
    return [("model", world.run_models), *choices, *([("model", world.run_models)] if draw.random() < 0.5 else [])]


def drawn_actor(world: World, draw: Random, cleans: bool) -> tuple[str, Work]:
    """Draw who takes part in an operation."""
    found = list(_actors(world, draw, cleans))
    weights = [_WEIGHTS[name.partition(" ")[0]] for name, _ in found]
    name, work = draw.choices(found, weights)[0]
    return name, lambda: _after_a_while(world, draw, work)


def _after_a_while(world: World, draw: Random, work: Work) -> None:
    """Come later than others, and see other objects than they did."""
    if draw.random() < 0.5:
        for _ in range(draw.choice((1, 10, 40))):
            world.storage.calls.scheduler.pause()
        if draw.random() < 0.7:
            change_object(world, draw)
    work()


# Whose steps are tasks: each has its own tries, and may be killed by itself.
WITH_TASKS = ("run", "model", "wake", "reconcile", "messages", "broke")
_WEIGHTS = {"run": 12, "model": 3, "wake": 1, "reconcile": 1, "messages": 1, "broke": 0.5, "uploader": 1}
_WEIGHTS |= {"reader": 4, "cleaner": 8, "retire": 1, "choose": 2}


def _actors(world: World, draw: Random, cleans: bool) -> Actors:
    """Yield who can take part."""
    day = _day(draw)
    yield f"run {day}", lambda: world.run_batch(day)
    yield "model", world.run_models
    yield "wake", lambda: world.run_model() if world.has_model_work else None
    yield "reconcile", lambda: world.run_each(world.tasks.run("reconcile", world.differences))
    bodies = [draw.choice(world.messages) for _ in range(draw.randint(0, 4))] if world.messages else []
    told = read_messages([*bodies, draw.choice(ODD_MESSAGES)], world.settings.landing_zone).batch_ids
    yield "messages", lambda: world.run_each(told)
    yield "broke", lambda: run_beyond_the_budget(world, day)
    yield "uploader", lambda: change_meanwhile(world, draw)
    if not world.has_tables:
        return
    yield "reader", lambda: read_what_is_published(world, draw)
    if cleans:
        yield "cleaner", lambda: clean_beside_runs(world)
    yield from _of_models(world, draw)


def _of_models(world: World, draw: Random) -> Actors:
    retirable = [one.backbone for one in backbones(world.calm) if one.backbone != world.settings.backbone.id]
    if retirable:
        backbone = draw.choice(retirable)
        yield f"retire {backbone}", lambda: retire(world, backbone)
    rows = world.calm.rows(MODELS)
    models = sorted(row["model_id"] for row in rows if row["backbone"] == world.settings.backbone.id)
    if models:
        choose, model = draw.choice((promote, promote, pin, unpin)), draw.choice(models)
        settings = world.settings
        yield f"choose {choose.__name__} {model}", lambda: _ignore(choose(world.tables, settings, model))


def _ignore(_: object) -> None:
    """Take a value that nobody asks for."""


def run_beyond_the_budget(world: World, day: str) -> None:
    """Run a batch that may compute nothing."""
    world.run_batch(day, with_variables(world.settings, ORCHARD_TARGET="emr", ORCHARD_MAX_EXECUTOR_HOURS=0.0))


def change_meanwhile(world: World, draw: Random) -> None:
    """Change objects while others are at work."""
    for _ in range(draw.randint(1, 3)):
        for _ in range(draw.randint(0, 40)):
            world.storage.calls.scheduler.pause()
        change_object(world, draw)


def clean_beside_runs(world: World) -> None:
    """Clean what is older than the retention."""
    clean(world.tables, world.settings, world.storage.calls.clock.of_machine, RETENTION)


def clean_everything(world: World) -> None:
    """Clean all that is not in use, however young: nobody else is at work, and every listing has caught up."""
    world.storage.calls.clock.advance(3600)
    clean(world.tables, world.settings, world.storage.calls.clock.of_machine + timedelta(days=3), timedelta())


def retire(world: World, backbone: str) -> None:
    """Retire a backbone, whose rows may all be gone by now."""
    with suppress(ConfigurationError):
        retire_backbone(world.tables, world.settings, backbone)


def read_what_is_published(world: World, draw: Random) -> None:
    """Read every batch as a consumer does, again and again while others are at work, and now and then slowly."""
    for _ in range(3):
        versions = BatchVersions.load(world.tables, world.settings.backbone.id)
        for _ in range(draw.choice((0, 20, 80))):
            world.storage.calls.scheduler.pause()
        check_rows(versions)


def check_rows(versions: BatchVersions) -> None:
    """Hold the rows of every batch against its `runs` row: they are of the version that it names, and each is there once."""
    for batch_id, version in versions.current.items():
        files = [*versions.features_files(batch_id), *versions.quarantine_files(batch_id)]
        rows = [
            (row["image_uri"], row["manifest_digest"]) for row in versions.tables.rows_of(files, ("image_uri", "manifest_digest"))
        ]
        assert {digest for _, digest in rows} <= {version.manifest_digest}, f"{batch_id}: rows of another version are read"
        assert len(rows) == len({uri for uri, _ in rows}), f"{batch_id}: an image is there twice"


def check_choices(tables: Tables, backbone: str) -> None:
    """A model that a person holds is followed by a person's choice alone."""
    own = (row for row in tables.rows(PROMOTIONS) if row["backbone"] == backbone and PCA.owns(row))
    rows = sorted(own, key=lambda row: row["sequence"])
    for before, after in pairwise(rows):
        assert not before["is_held"] or after["reason"].endswith("by hand"), f"a held model was followed: {after['reason']}"


def _day(draw: Random) -> str:
    """Draw a batch: mostly the same one, so that runs meet."""
    return draw.choices(DAYS, (6, 2, 1))[0]
