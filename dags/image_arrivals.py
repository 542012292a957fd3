"""### image_arrivals: S3's messages about uploads start the work

S3 sends a message about each upload to a queue (`ORCHARD_UPLOADS_QUEUE`, SQS); the triggerer reads the messages,
and they start this DAG.
Without a queue this DAG has no schedule and does nothing: batches then wait for `image_batches` or `reconcile_uploads`.

| task | what it does |
|---|---|
| emit_batches | maps the messages to batches and emits one event of the asset `uploads` a batch; skips if there is none |

**No message fails the run**: the log counts test events, repeated events, deletions, other buckets and prefixes, keys of no
batch, and text that is not JSON. It shows examples.

**Lost messages**: a message leaves the queue before its event is stored, so a crash in between loses it. `reconcile_uploads`
finds the upload all the same.

**Rerun**: clear the task to read the same messages again; an extra event is harmless.
"""

from airflow.sdk import DAG
from orchard.workflow.assets import upload_messages
from orchard.workflow.context import dag_arguments, settings
from orchard.workflow.tasks.uploads import emit_batches

messages = upload_messages(settings())

with DAG(
    dag_id="image_arrivals",
    schedule=[messages] if messages else None,
    doc_md=__doc__,
    **dag_arguments(),
):
    emit_batches()
