"""`orchard status`: batches and their state, what is pending, what failed and why, and what to do next."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from orchard_jobs.errors import JobError
from orchard_jobs.escaping import escaped

from orchard.batch.reconcile import ListPrefix
from orchard.clients import aws_client
from orchard.commands.console import format_table
from orchard.landing_zone.keys import is_batch_key
from orchard.landing_zone.listing import JunkTally, ListedObject, S3LandingZone, with_quick_times
from orchard.landing_zone.periods import batch_cron, is_start, period_end, period_start
from orchard.reporting.status import STATES, BatchState, WarehouseStatus, read_status
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables

NAME = "status"
HELP = "show the state of batches and model, what is pending, what failed and why, and what to do next"
_MOST_STARTS = 5
_PENDING = ("new", "changed", "planned", "staged", "half-way")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: whether and how to list the landing zone."""
    parser.description = f"{HELP}. The exit status is 1 if something is pending or failed, else 0."
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--no-listing", action="store_true", help="do not compare with what the landing zone lists")
    chosen.add_argument("--connection", metavar="ID", help="list with this Airflow connection, not with the AWS_* environment")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, settings: Settings, tables: Tables) -> int:
    """Print the state of batches and model; return 1 when something is pending or failed."""
    junk = JunkTally()
    found = read_status(tables, settings, None if arguments.no_listing else _lister(arguments.connection, settings, junk))
    found = found if arguments.no_listing else replace(found, junk=junk.objects)
    steps = list(next_steps(found, settings))
    if arguments.json:
        print(json.dumps(asdict(found) | {"is_settled": found.is_settled, "next": [asdict(step) for step in steps]}))
    else:
        print("\n".join(_lines(found, steps)))
    return 0 if found.is_settled else 1


@dataclass(frozen=True)
class NextStep:
    """One thing to do: in words, and as a command if one command does it."""

    words: str
    command: str | None = None


def next_steps(found: WarehouseStatus, settings: Settings) -> Iterator[NextStep]:
    """Yield what to do, the most pressing first."""
    if found.damage or found.in_state("damaged"):
        yield NextStep("repair what is lost or damaged", "orchard repair")
    for batch in found.in_state("refused"):
        yield NextStep(f"batch {batch.batch_id}: fix what the audit rejected, then start it again (see docs/operating.md)")
    pending = found.in_state(*_PENDING)
    key_format = settings.landing_zone.key_format
    startable = tuple(batch for batch in pending if is_batch_key(batch.batch_id, key_format))
    for batch_id in sorted({batch.batch_id for batch in pending} - {batch.batch_id for batch in startable}):
        yield NextStep(
            f"batch {batch_id} is not a key of ORCHARD_BATCH_KEY_FORMAT={key_format}: set the format back to complete it"
        )
    if startable:
        yield from _starts(startable, settings)
    else:
        for dag_id in found.model_work:
            yield NextStep(f"start {dag_id}, unless a run of it is active", f"airflow dags trigger {dag_id}")
    if not found.batches and not found.damage:
        yield NextStep(f"upload images to {settings.landing_zone.location.uri}/<batch>/<label>/<file>")


def _starts(pending: tuple[BatchState, ...], settings: Settings) -> Iterator[NextStep]:
    """Yield a backfill for each series of consecutive periods: a single one would also take the periods between the series."""
    key_format, cron = settings.landing_zone.key_format, batch_cron(settings.runs)
    series: list[list[datetime]] = []
    for moment in sorted(period_start(batch.batch_id, key_format) for batch in pending):
        if series and is_start(series[-1][-1], cron) and moment == period_end(series[-1][-1], cron):
            series[-1].append(moment)
        else:
            series.append([moment])
    for periods in series[:_MOST_STARTS]:
        words = f"{len(periods)} batches" if len(periods) > 1 else f"{periods[0]:{key_format}}"
        if not is_start(periods[0], cron):
            yield NextStep(f"start image_batches by hand for {words}, its partition key: the schedule has no such period")
            continue
        first, last = (f"{moment:%Y-%m-%dT%H:%M:%S}".removesuffix("T00:00:00") for moment in (periods[0], periods[-1]))
        command = f"airflow backfill create --dag-id image_batches --from-date {first} --to-date {last}"
        command += " --reprocess-behavior completed"
        yield NextStep(f"start image_batches for {words}, unless runs of them are active", command)
    if len(series) > _MOST_STARTS:
        more = len(series) - _MOST_STARTS
        yield NextStep(f"{more} more such series of batches, or start reconcile_uploads, which finds them all")


def _lines(found: WarehouseStatus, steps: list[NextStep]) -> Iterator[str]:
    yield f"backbone {found.backbone}, {f'model {found.model_id}' if found.model_id else 'no PCA model yet'}"
    if found.batches:
        head = ("batch", "state", "version", "listed", "quarantined", "missing", "captured", "accuracy")
        # Without a classifier there is nothing to tell.
        width = len(head) - all(batch.accuracy is None for batch in found.batches)
        yield "\n" + format_table(head[:width], [_row(batch)[:width] for batch in found.batches])
    yield ""
    for state, meaning in STATES.items():
        if state != "published" and found.in_state(state):
            yield f"{state}: {meaning}"
    yield from (f"{batch.batch_id}: {escaped(batch.why)}" for batch in found.batches if batch.why)
    yield from (f"{dag_id}: {work}" for dag_id, work in found.model_work.items())
    yield from (f"damaged: {one}" for one in found.damage)
    if found.strays:
        yield f"{found.strays} objects of the landing zone lie under no batch key"
    if found.junk:
        yield f"ignored files of the landing zone that desktop systems create: {found.junk}"
    if found.is_settled and found.batches:
        yield "nothing is pending" if found.strays is not None else "nothing is pending; the landing zone was not listed"
    for step in steps:
        yield f"next: {step.words}" + (f"\n      {step.command}" if step.command else "")


def _row(batch: BatchState) -> tuple[str, ...]:
    counts = (batch.version, batch.listed, batch.quarantined, batch.missing)
    share = "-" if batch.captured is None else f"{batch.captured:.1%}"
    right = batch.accuracy.to_text() if batch.accuracy else "-"
    return (batch.batch_id, batch.state, *("-" if count is None else str(count) for count in counts), share, right)


def _lister(connection: str | None, settings: Settings, junk: JunkTally) -> ListPrefix:
    """Return what lists the landing bucket below a prefix, and counts junk; it raises JobError when it cannot."""
    from botocore.exceptions import BotoCoreError, ClientError

    zone = settings.landing_zone

    def listed(prefix: str) -> Iterator[ListedObject]:
        try:
            yield from S3LandingZone(_client_of(connection), zone.bucket, junk).list(prefix)
        except (BotoCoreError, ClientError) as error:
            raise JobError(
                f"cannot list {zone.location.uri}: {error}: set AWS_ENDPOINT_URL, AWS_REGION and credentials, name an Airflow "
                "connection by --connection, or leave the listing out by --no-listing"
            ) from error

    return listed


def _client_of(connection: str | None) -> Any:
    return with_quick_times(aws_client("s3", connection))
