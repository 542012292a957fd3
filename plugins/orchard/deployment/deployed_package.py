"""Checks the deployed package of the jobs against the digests that were deployed with it."""

import hashlib
import json
from collections.abc import Iterable

from orchard_jobs.contract.digests import digest_of
from orchard_jobs.contract.locations import below, name_of
from orchard_jobs.errors import ConfigurationError, OrchardError
from orchard_jobs.escaping import escaping_logger

from orchard.deployment.destinations import destination_of
from orchard.deployment.package import MANIFEST, digest_in

log = escaping_logger(__name__)
_ADVICE = "run `orchard deploy`, and set the ORCHARD_JOBS_URI that it prints"


def check_package(uri: str, connection: str | None, used: Iterable[str]) -> None:
    """See that what jobs run of a deployed package is what was deployed.

    The folder's name tells the package's digest, its manifest that of each file. What cannot be read from here is only
    logged: the jobs have a log-in of their own.

    Args:
        uri: the package's folder, as `orchard deploy` prints it.
        connection: the Airflow connection to read it with; None: by the environment.
        used: the names of the files that jobs run.

    Raises:
        ConfigurationError: a file is not there, or is another one.
    """
    try:
        place = destination_of(uri, connection)
        found = {name: place.read(name) for name in (MANIFEST, *used)}
    except OrchardError as error:
        log.warning("the jobs' package was not compared with its digests: %s", error)
        return
    for name, content in found.items():
        if content is None:
            raise ConfigurationError(f"{below(uri, name)} is not there: {_ADVICE}")
    expected = _digests(uri, found.pop(MANIFEST) or b"")
    for name, content in found.items():
        if hashlib.sha256(content or b"").hexdigest() != expected.get(name):
            raise ConfigurationError(f"{below(uri, name)} does not match its {MANIFEST}: {_ADVICE}")


def _digests(uri: str, manifest: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file of a package; ConfigurationError when its folder is named after another manifest."""
    try:
        files = json.loads(manifest)["files"]
        digests = {name: file["sha256"] for name, file in files.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{below(uri, MANIFEST)} is no manifest: {_ADVICE}") from error
    named = digest_in(name_of(uri))
    if named and not digest_of(files).startswith(named):
        raise ConfigurationError(
            f"{below(uri, MANIFEST)} belongs to another package than the one that its folder is named after: {_ADVICE}"
        )
    return digests
