"""What values settings may have: each function turns a variable's text into its value; ValueError says what is wrong with it."""

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from croniter import CroniterBadDateError, croniter
from orchard_jobs.contract.locations import (
    S3Location,
    checked_batch_id,
    is_in_workspace,
    is_on_volume,
    local_path,
    warehouse_uri,
    without_slash,
)
from orchard_jobs.errors import ConfigurationError

if TYPE_CHECKING:
    from orchard_jobs.pca.fit import Components

# What Spark takes for something else.
_ODD = re.compile(r"[\s#?%\\\"',]")
_FEWEST_DAYS, _MOST_DAYS = 0.05, 365
# Seconds and hours; minutes.
_MOST, _WEEK = 1e9, 7 * 24 * 60
# A decoder's address space is 24 bytes a pixel.
_MOST_PIXELS = 2**31
_Number = TypeVar("_Number", int, float)


def _within(kind: Callable[[str], _Number], text: str, least: float, most: float, wanted: str) -> _Number:
    """Return a text's number; ValueError says what is wanted when it is none, or outside."""
    try:
        value = kind(text)
    except ValueError as error:
        raise ValueError(f"must be {wanted}") from error
    if not least <= value <= most:
        raise ValueError(f"must be {wanted}")
    return value


def one_of(*choices: str) -> Callable[[str], str | None]:
    """Return the kind of a text that is one of some; None for an empty one."""

    def kind(text: str) -> str | None:
        if text and text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text or None

    return kind


def keep_or_drop(text: str) -> bool:
    """Whether something is kept: `keep` or `drop`."""
    return one_of("keep", "drop")(text) == "keep"


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _within(float, text, 0, 1, "a number from 0 to 1")


def positive(text: str) -> int:
    """A whole number above 0."""
    return _within(int, text, 1, math.inf, "a whole number above 0")


def pixels(text: str) -> int:
    """A number of pixels that one decoder can hold."""
    return _within(int, text, 1, _MOST_PIXELS, f"a whole number above 0, at most {_MOST_PIXELS}")


def components(text: str) -> "Components":
    """A number of components, or a share of the variance."""
    wanted = "neither a whole number above 0 (components) nor a number above 0 and below 1 (share of the variance)"
    try:
        value: Components = int(text)
    except ValueError:
        try:
            value = float(text)
        except ValueError as error:
            raise ValueError(wanted) from error
    is_right = value >= 1 if isinstance(value, int) else 0 < value < 1
    if not is_right:
        raise ValueError(wanted)
    return value


def days(text: str) -> float:
    """A retention time in days."""
    wanted = f"a number of days from {_FEWEST_DAYS} to {_MOST_DAYS} (newer files may be in use)"
    return _within(float, text, _FEWEST_DAYS, _MOST_DAYS, wanted)


def seconds(text: str) -> float:
    """A number of seconds."""
    return _within(float, text, 0, _MOST, "a number of seconds from 0 to 1e9, such as 600")


def hours(text: str) -> float:
    """A number of hours."""
    return _within(float, text, 0, _MOST, "a number of hours from 0 to 1e9, such as 100")


def interval(text: str) -> float:
    """A number of seconds between two checks: from 0.1 on, for without a pause they would take a core."""
    return _within(float, text, 0.1, _MOST, "a number of seconds from 0.1 to 1e9, such as 60")


def count(text: str) -> int:
    """A whole number from 0 on."""
    return _within(int, text, 0, math.inf, "a whole number from 0 on")


def optional(text: str) -> str | None:
    """Any text; None for an empty one."""
    return text or None


def labels(text: str) -> tuple[str, ...]:
    """Labels, sorted: a comma separates two, and the spaces around it count for nothing."""
    return tuple(sorted({label.strip() for label in text.split(",")} - {""}))


def text_file(text: str) -> str | None:
    """The place of a text file: an absolute path or its `file:///` URI, or an S3 URI; None for an empty one."""
    if not text or Path(local_path(text) or text).is_absolute() or S3Location.find(text) is not None:
        return text or None
    raise ValueError("neither an absolute path, nor file:///..., nor s3://bucket/key")


def s3_uri(text: str) -> str | None:
    """The S3 URI of an object or a folder, without what Spark would take for something else; None for an empty one."""
    wanted = "not of the form s3://bucket/key, or with a character of it that Spark takes for something else"
    if not text:
        return None
    found = _s3_location(text, wanted)
    if not re.fullmatch(r"[a-z0-9.-]+", found.bucket) or not found.key or _ODD.search(found.key):
        raise ValueError(wanted)
    return text


def _s3_location(text: str, wanted: str) -> S3Location:
    found = S3Location.find(text)
    if found is None:
        raise ValueError(wanted)
    return found


def jobs_uri(text: str) -> str | None:
    """The folder of the jobs' package, in S3, on a Databricks volume or among its workspace files; None for an empty one."""
    if (is_on_volume(text) or is_in_workspace(text)) and not _ODD.search(text):
        return text
    return s3_uri(text)


def emr_application(text: str) -> str | None:
    """The id of an EMR Serverless application; None for an empty one."""
    if text and not re.fullmatch(r"[0-9a-z]{1,64}", text):
        raise ValueError("not an application id, such as `00f1r2e3`")
    return text or None


def role(text: str) -> str | None:
    """The ARN of an IAM role; None for an empty one."""
    if text and not re.fullmatch(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/\S+", text):
        raise ValueError("not a role ARN, such as `arn:aws:iam::123456789012:role/jobs`")
    return text or None


def warehouse(text: str) -> str:
    """The URI of a warehouse."""
    if not text:
        raise ValueError("give an absolute path, file:///... or s3://...")
    return warehouse_uri(text)


def landing(text: str) -> S3Location:
    """The S3 URI of a folder."""
    found = _s3_location(text, "not of the form s3://bucket/prefix")
    return S3Location(found.bucket, without_slash(found.key))


def schedule(text: str) -> str | None:
    """A cron expression; None for `none`."""
    if text == "none":
        return None
    if not croniter.is_valid(text):
        raise ValueError("not a cron expression, and not `none`")
    try:
        croniter(text, datetime(2000, 1, 1, tzinfo=UTC)).get_next()
    except CroniterBadDateError as error:
        raise ValueError("never fires: no month has that day") from error
    return text


def remote(text: str) -> str | None:
    """The address of a Spark Connect server; None for an empty one."""
    if text and not text.startswith("sc://"):
        raise ValueError("not of the form sc://host:port")
    return text or None


def queue(text: str) -> str | None:
    """The URL of a queue; None for an empty one."""
    if text and not text.startswith(("https://", "http://")):
        raise ValueError("not an SQS queue URL, such as `https://sqs.us-east-1.amazonaws.com/123456789012/uploads`")
    return text or None


def emr_cluster(text: str) -> str | dict[str, Any] | None:
    """The id of an EMR cluster, or the fields of a new one; None for an empty one."""
    if text.startswith("{"):
        return json_object(text)
    if text and not re.fullmatch(r"j-[A-Z0-9]+", text):
        raise ValueError("neither a cluster's id such as `j-1A2B3C` nor a JSON object")
    return text or None


def cluster(text: str) -> str | dict[str, Any]:
    """`serverless`, the id of a cluster, or the fields of a new one."""
    if text.startswith("{"):
        return json_object(text)
    if not re.fullmatch(r"[A-Za-z0-9-]+", text):
        raise ValueError("neither `serverless`, nor a cluster's id, nor a JSON object")
    return text


def memory(text: str) -> str:
    """Gigabytes such as `12g`."""
    if not re.fullmatch(r"[1-9][0-9]*g", text):
        raise ValueError("not a number of gigabytes such as `12g`")
    return text


def jvm_memory(text: str) -> str:
    """A JVM's memory such as `2g` or `1536m`."""
    if not re.fullmatch(r"[1-9][0-9]*[mgtMGT]", text):
        raise ValueError("not a size such as `2g` or `1536m`")
    return text


def minutes(text: str) -> int:
    """Whole minutes from 5 to a week."""
    return _within(int, text, 5, _WEEK, f"a whole number of minutes from 5 to {_WEEK}")


def stall_minutes(text: str) -> float:
    """A number of minutes from 0.1 to a week."""
    return _within(float, text, 0.1, _WEEK, f"a number of minutes from 0.1 to {_WEEK}")


def key_format(text: str) -> str:
    """A strftime format that gives each day its own key, which can be part of a path and is read back as that day."""
    days = [datetime(*day, tzinfo=UTC) for day in ((2000, 1, 2), (2000, 1, 3), (2000, 2, 2), (2001, 1, 2))]
    keys = [day.strftime(text) for day in days]
    if len(set(keys)) < len(keys):
        raise ValueError("gives two days the same key; include the year, the month and the day")
    try:
        checked_batch_id(keys[0])
    except ConfigurationError as error:
        raise ValueError(f"a key of this format cannot be part of a path: {error}") from error
    try:
        read = [datetime.strptime(key, text).replace(tzinfo=UTC) for key in keys]
    except (ValueError, re.error) as error:
        raise ValueError(f"the key {keys[0]!r} of this format cannot be read back as a day: {error}") from error
    if [moment.date() for moment in read] != [day.date() for day in days]:
        raise ValueError(f"the key {keys[0]!r} of this format is read back as another day")
    return text


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def tags(text: str) -> dict[str, Any]:
    """A JSON object of texts."""
    value = json_object(text)
    if not all(isinstance(item, str) for item in value.values()):
        raise ValueError("not a JSON object of texts")
    return value
