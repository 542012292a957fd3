"""What labels mean: which of them count, the class of each, and how many images each batch has of them."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchard_jobs.classifier.labelled_rows import rule_of_version
from orchard_jobs.contract.jobs import BatchVersion, HoldOut
from orchard_jobs.contract.locations import S3Location, local_path
from orchard_jobs.errors import DamagedFileError
from orchard_jobs.escaping import escaping_logger
from orchard_jobs.parquet import open_parquet
from orchard_jobs.storage import Warehouse

from orchard.settings.groups import ClassifierSettings

log = escaping_logger(__name__)
_COLUMNS = ["label", "class"]
Counts = Mapping[str, int]


@dataclass(frozen=True)
class LabelMeaning:
    """What labels mean.

    Attributes:
        mapping: the class of each label that has another name.
        unlabelled: labels that mean no label.
        least_rows: a class with fewer labelled images is left out.
    """

    mapping: Mapping[str, str]
    unlabelled: tuple[str, ...]
    least_rows: int

    def fields(self) -> list[object]:
        """Return what a classifier's id covers of it."""
        return [sorted(map(list, self.mapping.items())), list(self.unlabelled), self.least_rows]

    def classes_of(self, counts: Counts) -> "ClassChoice":
        """Return the classes that some labels' images make."""
        class_of = {label: self.mapping.get(label, label) for label in counts}
        rows: Counter[str] = Counter()
        for label, count in counts.items():
            rows[class_of[label]] += count
        left_out = {name: count for name, count in rows.items() if count < self.least_rows}
        return ClassChoice({label: name for label, name in class_of.items() if name not in left_out}, left_out)


@dataclass(frozen=True)
class ClassChoice:
    """The class of each label that has one, and the images of each class that has too few."""

    class_of: Mapping[str, str]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """The classes."""
        return frozenset(self.class_of.values())

    def hold_out(self, counts: Iterable[Counts]) -> HoldOut:
        """Return how rows are held out: by whole batches where most images are of classes that stand in several batches.

        Args:
            counts: the images of each label, a batch each.
        """
        batches: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        for of_batch in counts:
            of_classes = Counter({self.class_of[label]: 0 for label in of_batch if label in self.class_of})
            for label, count in of_batch.items():
                if label in self.class_of:
                    of_classes[self.class_of[label]] += count
            rows.update(of_classes)
            batches.update(of_classes.keys())
        apart = sum(count for name, count in rows.items() if batches[name] > 1)
        return "batches" if 2 * apart > rows.total() else "contents"


def label_meaning(settings: ClassifierSettings) -> LabelMeaning:
    """Return what labels mean by the settings.

    Raises:
        ConfigurationError: the file of ORCHARD_CLASSES is not there, or cannot be read as what it must be.
    """
    mapping = _read_mapping(settings) if settings.classes else {}
    return LabelMeaning(mapping, settings.unlabelled, settings.class_rows)


def _read_mapping(settings: ClassifierSettings) -> dict[str, str]:
    place = str(settings.classes)
    text = _read_text(settings, place)
    rows = csv.reader(text.splitlines())
    if [name.strip() for name in next(rows, [])] != _COLUMNS:
        raise settings.wrong("classes", f"its first line must be `{','.join(_COLUMNS)}`")
    mapping: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        values = [value.strip() for value in row]
        if not any(values):
            continue
        if len(values) != len(_COLUMNS) or not all(values):
            raise settings.wrong("classes", f"line {number} is {row!r}: give a label and its class")
        if mapping.setdefault(values[0], values[1]) != values[1]:
            raise settings.wrong("classes", f"line {number} gives the label {values[0]!r} a second class: leave one line out")
    return mapping


def _read_text(settings: ClassifierSettings, place: str) -> str:
    try:
        found = S3Location.find(place)
        if found is None:
            content = Path(local_path(place) or place).read_bytes()
        else:
            content = Warehouse(S3Location(found.bucket).uri).read(found.key)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise settings.wrong("classes", f"the file is not UTF-8: {error}") from error
    except (OSError, DamagedFileError) as error:
        raise settings.wrong("classes", f"the file cannot be read: {error}") from error


def count_labels(
    warehouse: Warehouse, versions: Iterable[BatchVersion], unlabelled: tuple[str, ...]
) -> dict[BatchVersion, Counter[str]]:
    """Return the labelled images of each batch version; those whose features are lost or damaged are left out with a warning.

    Of the features files only the columns with labels are read.
    """
    found = {}
    for version in versions:
        try:
            found[version] = _count(warehouse, version, unlabelled)
        except DamagedFileError as error:
            log.warning("batch %s is left out of the classifier: %s", version.batch_id, error)
    return found


def _count(warehouse: Warehouse, version: BatchVersion, unlabelled: tuple[str, ...]) -> Counter[str]:
    rule = rule_of_version(warehouse, version, unlabelled)
    counts: Counter[str] = Counter()
    for path in version.files:
        with open_parquet(warehouse, path) as file:
            counts.update(label for label in rule.labels_of(file.read(["image_uri", "label"])) if label is not None)
    return counts


def total(counts: Iterable[Counts]) -> Counter[str]:
    """Return the images of each label in all batches."""
    found: Counter[str] = Counter()
    for one in counts:
        found.update(one)
    return found
