"""The assets that tie the DAGs together. `uploads` and `features` are partitioned: each event is about one batch."""

from airflow.providers.amazon.aws.triggers.sqs import SqsSensorTrigger
from airflow.sdk import Asset, AssetWatcher

from orchard.settings import Settings

UPLOADS = Asset("uploads")
FEATURES = Asset("features")

# S3 sends one message an object, and a trigger ends with each event and is started again a second later: so one event takes many
# messages. The calls do not wait for a message, since those that were taken already would wait with them.
_MESSAGES_A_CALL = 10
_CALLS_AN_EVENT = 10


def upload_messages(settings: Settings) -> Asset | None:
    """Return the asset whose events are the messages of the uploads' queue; None where no queue is set."""
    if settings.landing_zone.uploads_queue is None:
        return None
    trigger = SqsSensorTrigger(
        sqs_queue=settings.landing_zone.uploads_queue,
        aws_conn_id=settings.aws_conn_id,
        max_messages=_MESSAGES_A_CALL,
        num_batches=_CALLS_AN_EVENT,
        wait_time_seconds=0,
        waiter_delay=max(1, round(settings.runs.poll_seconds)),
    )
    return Asset("upload_messages", watchers=[AssetWatcher(name="uploads_queue", trigger=trigger)])
