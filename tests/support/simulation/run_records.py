"""What the model of a history keeps: of each run what it computed, of each manifest what it was made of."""

from dataclasses import dataclass

from orchard.settings import Settings
from orchard.tables.reports import PlannedJobs

from support.simulation.landing_zone import Contents


@dataclass
class Run:
    """One run of image_batches for one batch, and what it put through the network.

    Attributes:
        began: the number of the operation in which it began.
        ended: that in which it ended, well or not.
        computed: (backbone, content) that its featurize job put through the network; a killed job's work is lost with it.
    """

    began: int
    ended: int = 0
    computed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Begun:
    """A run of image_batches whose jobs are over, and which may stand still before it goes on: its name, and its settings."""

    run: Run
    name: str
    planned: PlannedJobs
    settings: Settings


@dataclass
class Seen:
    """What a manifest was made of: the listing's contents by key, and those of the missing images whose rows stay."""

    listed: Contents
    missing: Contents
    vanished: frozenset[str] = frozenset()

    @property
    def contents(self) -> Contents:
        """The last seen content of every key of the version."""
        return {key: content for key, content in (self.missing | self.listed).items() if key not in self.vanished}
