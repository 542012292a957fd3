"""What the errors of stores and table formats mean, in Orchard's words. The one place that reads what they say.

Only the text of an error of obstore or delta-rs says what happened, with internals below it. boto3's text contains its codes.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError

from orchard_jobs.errors import JobError

# Of each cause what stands in an error's text, as a pattern, and what it means; the first that fits counts.
_CAUSES = {
    "full disk": (
        r"(os error|code:) (28|122)\b",
        "cannot be written: no space is left on its disk or in its quota. Free some (`orchard clean` lists what nothing needs), "
        "then clear the task or start the run again: it continues from here, and no reader sees half of it",
    ),
    "read-only disk": (r"(os error|code:) 30\b", "cannot be written: its disk is read-only: make it writable, then run again"),
    "rights": (
        r"(os error|code:) (1|13)\b|Errno (1|13)\]",
        "cannot be reached: this user may not read or write there: give it the right to, then run again",
    ),
    "bucket": ("NoSuchBucket", "cannot be reached: its bucket is not there: check the bucket's name and AWS_ENDPOINT_URL"),
    "archived": (
        "InvalidObjectState",
        "is archived (storage class GLACIER or DEEP_ARCHIVE) and has to be restored: restore it (`aws s3api restore-object`), "
        "wait until it can be read, then run again",
    ),
    "expired key": (
        "ExpiredToken|TokenRefreshRequired",
        "cannot be reached: the key or its session token has expired: log in again, or renew the credentials, then run again",
    ),
    "unknown key": (
        "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken",
        "cannot be reached: the store refuses the key: check the access key, its secret and its session token",
    ),
    # An answer to HEAD has a status alone.
    "access": (
        r"AccessDenied|403 Forbidden|\(403\) when calling",
        "cannot be reached: access denied: check the key, and let it or its role read and write there",
    ),
    "log-in": (
        r"401 Unauthorized|\(401\) when calling",
        "cannot be reached: the store refuses the log-in: check the access key, its secret and its session token",
    ),
    "refusal": (
        r"400 Bad Request|\(400\) when calling",
        "cannot be reached: the store refuses the request and does not say why: check the key, its session token and AWS_REGION",
    ),
    "overload": (
        r"50[0234] (Internal Server Error|Bad Gateway|Service Unavailable|Gateway Time-?out)|SlowDown|\(50[0234]\) when calling",
        "cannot be reached: the store answers that it cannot serve now: wait a moment, then run again",
    ),
    "connection": (
        r"error sending request|tcp connect error|dns error|Could not connect to the endpoint|Connect(ion)? timeout",
        "cannot be reached: its server does not answer: check that it runs, that this machine can reach it, and AWS_ENDPOINT_URL",
    ),
}
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Where the insides begin that obstore and delta-rs write below their message.
_INSIDES = re.compile(r"\n\nDebug source|\n +\d+: |ParsedLogPath")


def cause_of(error: BaseException) -> str | None:
    """Return the name of what an error was caused by; None where nobody knows."""
    text = str(error)
    return next((name for name, (pattern, _) in _CAUSES.items() if re.search(pattern, text)), None)


def explained(error: BaseException) -> str:
    """Return what an error means and what to do, in words that follow the name of what could not be reached."""
    cause = cause_of(error)
    return f"cannot be reached: {plain_words(error)}" if cause is None else _CAUSES[cause][1]


def plain_words(error: BaseException) -> str:
    """Return an error's own message on one line, without the insides and the colours that libraries add."""
    message = _INSIDES.split(_ANSI.sub("", str(error)), maxsplit=1)[0]
    return re.sub(r"\s+", " ", message).strip(" :") or type(error).__name__


def is_absence(error: BaseException) -> bool:
    """Tell whether a store says that a file is not there; a bucket that is not there is a fault."""
    return isinstance(error, NotFoundError | FileNotFoundError) and cause_of(error) != "bucket"


@contextmanager
def explaining_store_errors(uri: str) -> Iterator[None]:
    """Turn a store's errors, in a block that reads or writes a URI, into a JobError: what, where, and what to do.

    That something is not there, or is there already, stays the error that it is.
    """
    try:
        yield
    except (BaseError, OSError) as error:
        is_answer = isinstance(error, AlreadyExistsError | PreconditionError | FileExistsError) or is_absence(error)
        # Arrow's own faults are of the plain class, and name no cause.
        if is_answer or (type(error) is OSError and cause_of(error) is None):
            raise
        raise JobError(f"{uri} {explained(error)}") from error
