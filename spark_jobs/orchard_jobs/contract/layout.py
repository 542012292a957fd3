"""Where everything lies under the warehouse, as paths relative to it, and the forms of URIs and batch ids."""

import re
import secrets

from orchard_jobs.contract.columns import Table
from orchard_jobs.errors import ConfigurationError

_BATCH_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}")
WORK = "_work"
MANIFESTS = f"{WORK}/manifests"
PLANS = f"{WORK}/plans"
DECISIONS = f"{WORK}/decisions"
NETWORKS = f"{WORK}/networks"
RETIRED = f"{WORK}/retired"


def checked_batch_id(batch_id: str) -> str:
    """Return the batch id when it can stand in a path and in a log; raise ConfigurationError otherwise."""
    if not _BATCH_ID.fullmatch(batch_id):
        raise ConfigurationError(
            f"batch id {batch_id!r} is not 1 to 100 letters, digits, '.', '_' or '-' beginning with a letter or digit: "
            "change ORCHARD_BATCH_KEY_FORMAT, or start the run with another partition key"
        )
    return batch_id


def image_uri(bucket: str, key: str) -> str:
    """Return `s3://bucket/` + the raw key, never percent-encoded."""
    return f"s3://{bucket}/{key}"


def split_image_uri(uri: str) -> tuple[str, str]:
    """Return (store, key) of an image URI: `s3://bucket/a b.jpg` gives (`s3://bucket`, `a b.jpg`).

    The key is raw: `#`, `?` and `%` are part of it. `file:///folder/x.jpg` gives (`file:///`, `folder/x.jpg`).
    """
    scheme, _, rest = uri.partition("://")
    host, _, key = rest.partition("/")
    return (f"{scheme}://{host}" if host else f"{scheme}:///"), key


def label_of(key: str, batch_prefix: str) -> str | None:
    """Return the label: the second-to-last element of the key below the batch, or None directly under it."""
    elements = key.removeprefix(batch_prefix).split("/")
    return elements[-2] if len(elements) > 1 else None


def warehouse_uri(text: str) -> str:
    """Return a warehouse's URI without a trailing slash: `file:///...` for an absolute path, `s3://...` as it is.

    Raises:
        ConfigurationError: another scheme, a relative path, no bucket, or a character that URIs give a meaning of their own.
    """
    scheme, mark, rest = text.partition("://") if "://" in text else ("file", "", text.removeprefix("file:"))
    is_file = scheme == "file" and rest.startswith("/") and rest.strip("/") != ""
    is_s3 = scheme in ("s3", "s3a") and bool(mark) and rest.partition("/")[0] != ""
    if not (is_file or is_s3):
        raise ConfigurationError(
            f"warehouse {text!r} is neither an absolute path nor a file: or s3: URI, of a folder: set ORCHARD_WAREHOUSE"
        )
    odd = sorted(set(rest) & set("#?%\\"))
    if odd:
        raise ConfigurationError(
            f"warehouse {text!r} holds {' '.join(odd)}, which readers of URIs take for something else: choose another folder"
        )
    return f"{'file' if is_file else 's3'}://{rest}".rstrip("/")


def manifest_path(manifest_digest: str, name: str = "head.json") -> str:
    """File of one manifest: its head, or a part of a name."""
    return f"{MANIFESTS}/{manifest_digest}/{name}"


def plan_path(plan_digest: str) -> str:
    """File of one projection plan."""
    return f"{PLANS}/{plan_digest}.json"


def decision_path(digest: str) -> str:
    """File of one model plan: what a run of pca_model decided, and why."""
    return f"{DECISIONS}/{digest}.json"


def network_path(backbone: str) -> str:
    """File of a backbone's exported network."""
    return f"{NETWORKS}/{backbone}.onnx"


def report_path(work: str) -> str:
    """File of a finished piece of work's report; created once."""
    return f"{WORK}/{work}/report.json"


def retired_path(digest: str) -> str:
    """File that names what a removed report or plan named, so that it outlives it by one retention."""
    return f"{RETIRED}/{digest}.json"


def progress_folder(work: str) -> str:
    """Folder of the running counts of a piece of work: a folder an attempt, in which each worker task rewrites its own file.

    Never data.
    """
    return f"{WORK}/{work}/progress"


def attempts_folder(work: str) -> str:
    """Folder of the attempts at a piece of work, where its jobs outlive their submitter: a folder each."""
    return f"{WORK}/{work}/attempts"


def attempt_path(work: str, attempt: int, event: str) -> str:
    """File of an attempt's event, `claimed`, `started` or `ended`; created once."""
    return f"{attempts_folder(work)}/{attempt:06d}/{event}.json"


def random_element() -> str:
    """Return a folder name that no other process draws."""
    return secrets.token_hex(8)


def scratch_folder(work: str, element: str) -> str:
    """Folder for what a job writes on the way to its tables."""
    return f"{WORK}/{work}/scratch/{element}"


def fault_path(work: str) -> str:
    """File of what a job at a piece of work last failed on, rewritten by the next that fails."""
    return f"{WORK}/{work}/scratch/fault.json"


def staged_folder(table: Table, partition_values: tuple[str, ...], work: str, element: str) -> str:
    """Folder, fresh for one process, of the Parquet files that a job stages for one table partition."""
    hive = "/".join(f"{name}={value}" for name, value in zip(table.partition_by, partition_values, strict=True))
    return f"{table.name}/{hive}/{work}/{element}"
