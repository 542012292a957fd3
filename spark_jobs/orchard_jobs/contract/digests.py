"""Content addresses: one canonical JSON form and the SHA-256 of it."""

import hashlib
import json
import re
from typing import Any

from orchard_jobs import __version__


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: keys sorted, no white space, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """Return the SHA-256 (64 lower-case hex digits) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def work_digest(input_digest: str, backbone: str, stage: str) -> str:
    """Return the name of one piece of work: equal inputs give one name, so a finished report can be reused.

    The stage's parameters (pixel limit, model) are in the manifest or the plan, so `input_digest` covers them.
    """
    return digest_of([input_digest, backbone, stage, __version__])


def staged_name(sha256: str) -> str:
    """Return the name of a staged file, which contains the SHA-256 of its content."""
    return f"part-{sha256}.parquet"


def sha256_in(path: str) -> str | None:
    """Return the SHA-256 of a file's content that its name contains; None for a file of an earlier release."""
    found = re.search(r"/part-([0-9a-f]{64})\.parquet$", path)
    return found[1] if found else None
