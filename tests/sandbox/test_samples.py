"""The sample images: the same bytes each time, and as odd as real uploads."""

import io
from pathlib import Path

import numpy as np
import pytest
from orchard_sandbox.stack.samples import FRUITS, batch_files, draw_image, draw_samples, image_bytes
from PIL import Image, UnidentifiedImageError


def test_a_seed_gives_the_same_bytes_and_another_seed_gives_others() -> None:
    assert batch_files(0) == batch_files(0)
    assert image_bytes("Kiwi", 3) == image_bytes("Kiwi", 3)
    assert image_bytes("Kiwi", 3) != image_bytes("Kiwi", 3, seed=1)


def test_three_batches_of_sixty_images_over_six_labels_are_written_once(tmp_path: Path) -> None:
    names = draw_samples(tmp_path / "samples")
    assert names == sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert len(names) == 3
    for name in names:
        files = list((tmp_path / "samples" / name).glob("*/*.jpg"))
        assert len(files) >= 60
        assert len({file.parent.name for file in files}) >= 6
    (tmp_path / "samples" / names[0] / "Kiwi" / "mine.jpg").write_bytes(b"kept")
    assert draw_samples(tmp_path / "samples") == names
    assert (tmp_path / "samples" / names[0] / "Kiwi" / "mine.jpg").exists()


def test_oddities_are_a_broken_file_a_duplicate_a_cmyk_and_a_single_pixel() -> None:
    first, second, third = (batch_files(index) for index in range(3))
    with pytest.raises((OSError, UnidentifiedImageError)):
        Image.open(io.BytesIO(first["Banana/broken.jpg"])).load()
    assert len(set(first.values())) == len(first) - 1
    assert Image.open(io.BytesIO(second["Kiwi/cmyk.jpg"])).mode == "CMYK"
    assert Image.open(io.BytesIO(third["Lemon/one pixel.jpg"])).size == (1, 1)


def test_most_images_are_like_fruits_360_and_some_are_of_other_sizes() -> None:
    sizes = [Image.open(io.BytesIO(content)).size for content in batch_files(1).values()]
    assert sizes.count((100, 100)) > len(sizes) / 2
    assert len(set(sizes)) > 3


def test_labels_differ_more_than_images_of_one_label() -> None:
    def histogram(label: str, number: int) -> np.ndarray:
        pixels = np.asarray(draw_image(label, number)).reshape(-1, 3)
        return np.histogramdd(pixels[pixels.min(axis=1) < 240], bins=4, range=[(0, 256)] * 3, density=True)[0].ravel()

    means = {label: np.mean([histogram(label, number) for number in range(6)], axis=0) for label in FRUITS}
    hits = [
        min(means, key=lambda other: float(np.abs(means[other] - histogram(label, number)).sum())) == label
        for label in FRUITS
        for number in range(6, 12)
    ]
    assert sum(hits) > 0.6 * len(hits)
