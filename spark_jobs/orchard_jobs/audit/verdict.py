"""What an audit found: one failure a failed check, with where, how many and examples."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchard_jobs.errors import AuditError
from orchard_jobs.escaping import escaped

EXAMPLES = 5


@dataclass(frozen=True)
class Failure:
    """One failed check.

    Attributes:
        check: the check's name.
        what: what it expects, as a clause.
        where: the first files (or `report`, `manifest`, `model`) that fail it, at most five.
        count: how many rows, files or values fail it.
        examples: the first of them, at most five.
    """

    check: str
    what: str
    where: tuple[str, ...]
    count: int
    examples: tuple[str, ...]

    def to_text(self) -> str:
        """Return the failure for a person, a line for the check and one for each example."""
        head = f"{self.check}: failed for {self.count}: expected that {self.what}; in {', '.join(self.where)}"
        return "\n".join([head, *(f"    {example}" for example in self.examples)])


@dataclass(frozen=True)
class Verdict:
    """An audit's outcome.

    Attributes:
        passed: names of the checks that found no fault.
        failures: the checks that failed.
        warnings: what a person may want to know although nothing failed, and checks that could not be made.
    """

    passed: tuple[str, ...]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]

    @property
    def has_passed(self) -> bool:
        """Tell whether no check failed."""
        return not self.failures

    def raise_if_failed(self) -> None:
        """Raise AuditError, which lists every failed check, unless all passed."""
        if self.failures:
            lines = [failure.to_text() for failure in self.failures] + [f"warning: {text}" for text in self.warnings]
            raise AuditError(
                f"{len(self.failures)} of {len(self.failures) + len(self.passed)} checks failed, nothing is published. "
                "Look at the examples, fix the cause and start a new run, which also stages lost or damaged files again:\n"
                + "\n".join(lines)
            )


@dataclass
class _Tally:
    count: int = 0
    where: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)


class Findings:
    """The checks of one audit and what they found so far; memory does not grow with the number of faults."""

    def __init__(self) -> None:
        self._asked: dict[str, str] = {}
        self._found: dict[str, _Tally] = {}
        self._warnings: list[str] = []

    def register_checks(self, checks: dict[str, str]) -> None:
        """Register checks: what each expects, by name. A check passes unless a fault is added to it."""
        self._asked |= checks

    def add(self, check: str, where: str, example: str) -> None:
        """Record one fault; KeyError for a check that was not registered."""
        if check not in self._asked:
            raise KeyError(f"check {check} was not registered: its fault would be lost")
        found = self._found.setdefault(check, _Tally())
        found.count += 1
        if where not in found.where and len(found.where) < EXAMPLES:
            found.where.append(where)
        if len(found.examples) < EXAMPLES:
            found.examples.append(escaped(example))

    def extend(self, check: str, where: str, examples: Iterable[str]) -> None:
        """Record one fault an example."""
        for example in examples:
            self.add(check, where, example)

    def warn(self, text: str) -> None:
        """Record a warning."""
        self._warnings.append(escaped(text))

    def has_failed(self) -> bool:
        """Tell whether any fault is recorded."""
        return bool(self._found)

    def verdict(self) -> Verdict:
        """Return the outcome, in the order in which the checks were registered."""
        failures = tuple(
            Failure(check, what, tuple(found.where), found.count, tuple(found.examples))
            for check, what in self._asked.items()
            if (found := self._found.get(check))
        )
        return Verdict(tuple(check for check in self._asked if check not in self._found), failures, tuple(self._warnings))
