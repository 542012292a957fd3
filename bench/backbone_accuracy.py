"""How often is a fruit recognised, by backbone and by view, and what does an image cost?

The classifier is the product's (`orchard_jobs.classifier`), fitted on the training images alone. Its shrinkage is chosen without
the test images: on the validation images if the split has some, otherwise on five folds of the training images, by content.
A tie takes the larger. On photos, scikit-learn's nearest neighbour and logistic regression get the same roots of the vectors.

The folder holds Grocery Store's official data set (`train.txt`, `val.txt`, `test.txt`) or the sample data. These are shop photos
of Grocery Store, split by their folders, and a subset of Fruits-360 with its own split. Frames of Fruits-360 are turns of one
object, so its own split is easy. Two harder questions use the same shrinkage: sorts that stand on several days, with one day left
out, and the shop photos, recognised by a classifier of Fruits-360.

CPU-ms an image are of one thread, decoding included: the median of three rounds, in which the backbones and views take turns.
Run: .venv/jobs/bin/python bench/backbone_accuracy.py [folder] [most images of a label and a part of Fruits-360]
"""

import csv
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from featurize_rates import DATA, prepare
from numpy.typing import NDArray
from orchard_jobs.classifier.class_moments import ClassMoments, root
from orchard_jobs.classifier.classes import classes_of
from orchard_jobs.classifier.fit import Classifier, fit
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.views import parse_views
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.loaded_backbone import LoadedBackbone, load_backbone
from orchard_jobs.images.vectors import vectors_of
from orchard_jobs.storage import Warehouse

BACKBONES = {"efficientnet_lite0": "onnx", "efficientnet_lite2": "onnx", "color_histogram": "numpy"}
VIEWS = ("whole", "centre:0.875", "centre:0.6,centre:0.7,centre:0.8,centre:0.9")
SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
FOLDS, LIMIT = 5, 10**9
TIMED, ROUNDS = 60, 3
Chosen = NDArray[np.bool_]
Labels = NDArray[np.str_]


@dataclass(frozen=True)
class Photo:
    """One image of a data set.

    Attributes:
        path: the file.
        part: `train`, `val` or `test`.
        fine: its label.
        sort: what sort of fruit it is.
        day: the batch that it stands in; empty where the set knows none.
    """

    path: Path
    part: str
    fine: str
    sort: str
    day: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Rows:
    """Photos and their vectors."""

    photos: tuple[Photo, ...]
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, backbone: LoadedBackbone, photos: tuple[Photo, ...]) -> "Rows":
        """Return the vectors of photos, each of which is a good image."""
        return cls(photos, np.stack([vector_of(backbone, photo.path) for photo in photos]))

    def part(self, name: str) -> "Rows":
        """Return the rows of one part of the split."""
        return self.where(self.column("part") == name)

    def where(self, chosen: Chosen) -> "Rows":
        """Return some of the rows."""
        return Rows(tuple(self.photos[index] for index in np.flatnonzero(chosen)), self.vectors[chosen])

    def column(self, name: str) -> Labels:
        """Return an attribute of each photo."""
        return np.array([getattr(photo, name) for photo in self.photos])

    def moments(self, kind: str) -> ClassMoments:
        """Return the class moments by the labels of a kind, `fine` or `sort`."""
        return ClassMoments.of(self.vectors, list(self.column(kind)))


def main() -> int:
    """Print the tables; return 1 without images."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA.parent
    most = int(sys.argv[2]) if len(sys.argv) > 2 else 10**9
    sets = data_sets(folder, most)
    if not any(sets.values()):
        print(f"{folder} holds neither manifest.csv nor train.txt with their images", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        loaded = dict(load_all(Warehouse.at(place)))
    for name, photos in sets.items():
        print(f"\n{name}: {len(photos)} images, {len({photo.fine for photo in photos})} labels", flush=True)
    shop, *fruits = sets.values()
    print(f"\n{'backbone':20} {'views':46} fine %  sort %  shrinkage  neighbour %  regression %")
    for case, backbone in loaded.items():
        report_photos(case, rows := Rows.of(backbone, shop))
        if fruits:
            report_fruits(case, Rows.of(backbone, fruits[0]), rows)
    report_cost(loaded, [photo.path for photo in shop[:: max(1, len(shop) // TIMED)]])
    return 0


def load_all(warehouse: Warehouse) -> Iterator[tuple[str, LoadedBackbone]]:
    """Yield each backbone with each of the views, by the name of both."""
    for name, engine in BACKBONES.items():
        for text in VIEWS:
            backbone = backbone_named(name, engine, views=parse_views(text))
            prepare(backbone, warehouse)
            yield f"{name:20} {text:46}", load_backbone(backbone, warehouse)


def data_sets(folder: Path, most: int) -> dict[str, tuple[Photo, ...]]:
    """Return the photos of each data set that a folder holds, by its name: shop photos first."""
    if (folder / "train.txt").exists():
        return {"Grocery Store, official split": tuple(official_photos(folder))}
    if not (folder / "manifest.csv").exists():
        return {}
    with (folder / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (folder / row["path"]).exists()]
    by_set = {name: [row for row in rows if Path(row["path"]).parts[0] == name] for name in ("grocery_store", "fruits360")}
    shop = (shop_photo(folder, row) for row in by_set["grocery_store"])
    fruits = (fruit_photo(folder, row) for row in by_set["fruits360"])
    return {"shop photos": tuple(shop), "subset of Fruits-360": limited(tuple(fruits), most)}


def official_photos(folder: Path) -> Iterator[Photo]:
    """Yield the photos of the Grocery Store data set by its lists, whose lines are `path, fine, coarse`."""
    for part in ("train", "val", "test"):
        for line in (folder / f"{part}.txt").read_text().splitlines():
            path, fine, coarse = (word.strip() for word in line.split(","))
            yield Photo(folder / path, part, fine, coarse)


def shop_photo(folder: Path, row: dict[str, str]) -> Photo:
    """Return a shop photo, `grocery_store/<part>/Fruit/<sort>/[<label>/]<file>`; a sort is named as Fruits-360 names it."""
    _, part, _, sort, *_ = Path(row["path"]).parts
    return Photo(folder / row["path"], part, row["label"], sort.removeprefix("Red-").split("-")[0].capitalize())


def fruit_photo(folder: Path, row: dict[str, str]) -> Photo:
    """Return a photo of Fruits-360, `fruits360/<day>/<label>/<file>`; a sort is the first word of its labels."""
    part = {"Training": "train", "Test": "test"}[row["split"]]
    return Photo(folder / row["path"], part, row["label"], row["label"].split()[0], Path(row["path"]).parts[1])


def limited(photos: tuple[Photo, ...], most: int) -> tuple[Photo, ...]:
    """Return so many photos of each label and part, chosen by their content."""
    groups: dict[tuple[str, str], list[Photo]] = {}
    for photo in photos:
        groups.setdefault((photo.fine, photo.part), []).append(photo)
    return tuple(photo for group in groups.values() for photo in sorted(group, key=lambda one: one.digest)[:most])


def vector_of(backbone: LoadedBackbone, path: Path) -> NDArray[np.float32]:
    """Return a photo's vector."""
    found = decode(path.read_bytes(), LIMIT, backbone.input_pixels, backbone.views)
    assert isinstance(found, Decoded), path
    vector: NDArray[np.float32] = vectors_of(backbone, found.squares[np.newaxis])[0]
    return vector


def report_photos(case: str, rows: Rows) -> None:
    """Print how often the test photos are recognised, and how often by others than the product's classifier."""
    found = accuracies(rows)
    neighbour, regression = by_others(rows.part("train"), rows.part("test"))
    print(f"{case}{found[0]:7.1f} {found[1]:7.1f} {found[2]:10} {neighbour:12.1f} {regression:13.1f}", flush=True)


def report_fruits(case: str, fruits: Rows, shop: Rows) -> None:
    """Print how often fruits of Fruits-360 are recognised, and photos by what was learnt on it."""
    fine, sort, shrinkage = accuracies(fruits)
    print(f"{case}{fine:7.1f} {sort:7.1f} {shrinkage:10}  Fruits-360, its own split")
    print(f"{'':67}{'':7} {across_days(fruits, shrinkage):7.1f} {'':10}  Fruits-360, one day out")
    both = shop.where(np.isin(shop.column("sort"), fruits.column("sort")))
    classifier = fit(classes_of(fruits.moments("sort")), shrinkage)
    print(f"{'':67}{'':7} {accuracy(classifier, both, 'sort'):7.1f} {'':10}  shop photos by Fruits-360", flush=True)


def accuracies(rows: Rows) -> tuple[float, float, float]:
    """Return the percentages of test images whose label and whose sort is told, and the shrinkage."""
    train, test = rows.part("train"), rows.part("test")
    moments = train.moments("fine")
    held_out = [(moments, rows.part("val"))] if rows.part("val").photos else list(folds(train))
    right = {s: np.mean([accuracy(fit(classes_of(some), s), others, "fine") for some, others in held_out]) for s in SHRINKAGES}
    best = max(SHRINKAGES, key=lambda s: (right[s], s))
    told = predict(fit(classes_of(moments), best), test)
    sort_of = {photo.fine: photo.sort for photo in rows.photos}
    sorts = np.array([sort_of[label] for label in told])
    return share(told == test.column("fine")), share(sorts == test.column("sort")), best


def folds(rows: Rows) -> Iterator[tuple[ClassMoments, Rows]]:
    """Yield the class moments without each fold, and the fold; equal files share one."""
    fold = np.array([int(photo.digest[:8], 16) % FOLDS for photo in rows.photos])
    for number in range(FOLDS):
        yield rows.where(fold != number).moments("fine"), rows.where(fold == number)


def across_days(rows: Rows, shrinkage: float) -> float:
    """Return the percentage of photos whose sort is told by the other days, of the sorts that stand on several."""
    days = {sort: {photo.day for photo in rows.photos if photo.sort == sort} for sort in set(rows.column("sort"))}
    several = rows.where(np.array([len(days[photo.sort]) > 1 for photo in rows.photos]))
    right: list[bool] = []
    for day in sorted(set(several.column("day"))):
        test = several.where(several.column("day") == day)
        others = rows.where(rows.column("day") != day)
        right += list(predict(fit(classes_of(others.moments("sort")), shrinkage), test) == test.column("sort"))
    return share(np.array(right))


def predict(classifier: Classifier, rows: Rows) -> Labels:
    """Return the class of each row."""
    places = classifier.scores(classifier.whiten(rows.vectors)).argmax(axis=1)
    return np.array([classifier.classes[place] for place in places])


def accuracy(classifier: Classifier, rows: Rows, kind: str) -> float:
    """Return the percentage of rows whose class is told."""
    return share(predict(classifier, rows) == rows.column(kind))


def share(is_right: Chosen) -> float:
    """Return the percentage of what is right."""
    return 100 * float(is_right.mean())


def by_others(train: Rows, test: Rows) -> tuple[float, float]:
    """Return the percentages of nearest neighbour and of logistic regression on the same roots."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    models: tuple[Any, Any] = KNeighborsClassifier(1), LogisticRegression(max_iter=2000)
    told = [model.fit(root(train.vectors), train.column("fine")).predict(root(test.vectors)) for model in models]
    return share(told[0] == test.column("fine")), share(told[1] == test.column("fine"))


def report_cost(loaded: dict[str, LoadedBackbone], paths: Sequence[Path]) -> None:
    """Print what an image costs."""
    print(f"\n{'backbone':20} {'views':46} CPU-ms an image")
    rounds = [{case: milliseconds(backbone, paths) for case, backbone in loaded.items()} for _ in range(ROUNDS)]
    for case in loaded:
        print(f"{case}{median(one[case] for one in rounds):16.1f}")


def milliseconds(backbone: LoadedBackbone, paths: Sequence[Path]) -> float:
    """Return the CPU-ms that an image takes."""
    began = time.process_time()
    for path in paths:
        vector_of(backbone, path)
    return 1e3 * (time.process_time() - began) / len(paths)


if __name__ == "__main__":
    sys.exit(main())
