"""The one error tree. What to do about a fault depends on its class, never on its text.

Data faults are not here: a bad image is a quarantine row (`contract.quarantine`), not an exception.
"""

from orchard_jobs.escaping import escaped


class OrchardError(Exception):
    """Any fault that Orchard reports itself: what, which value, where, and the next step. Control characters are escaped."""

    def __init__(self, text: str) -> None:
        super().__init__(escaped(text, kept="\n"))


class ConfigurationError(OrchardError):
    """A setting or a file that a person has to fix. Raised before anything is submitted; never retried."""


class JobError(OrchardError):
    """A job could not do its work (network, memory, a lost file). Safe to retry: no path is written twice."""


class NoTableError(JobError):
    """A table was never created: no batch has got as far as a plan."""


class DamagedFileError(JobError):
    """A file of the warehouse is gone, or holds something else than was written.

    Attributes:
        uri: the file.
        fault: what is wrong with it, in words that follow the file's name.
        advice: what to do.
    """

    def __init__(
        self, uri: str, fault: str, advice: str = "`orchard verify` lists all damage, `orchard repair` mends it"
    ) -> None:
        super().__init__(f"{uri} {fault}: {advice}")
        self.uri, self.fault, self.advice = uri, fault, advice

    def __reduce__(self) -> tuple[type["DamagedFileError"], tuple[str, str, str]]:
        return type(self), (self.uri, self.fault, self.advice)


class AuditError(OrchardError):
    """A check on staged rows failed. Nothing is published, and what was published before is untouched."""


class SupersededError(OrchardError):
    """A newer version of the batch was published meanwhile: nothing is written, and there is nothing left to do."""
