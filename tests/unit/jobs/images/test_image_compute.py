"""The pipeline of a task: nothing lost, order kept, each content run once, faults told apart."""

import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from orchard_jobs.contract.manifest import Entry
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.contract.views import WHOLE
from orchard_jobs.errors import JobError
from orchard_jobs.images.compute import Bad, Good, ImageResult, InputRules, Known, Tally, compute
from orchard_jobs.images.decode import Decoded, decode
from orchard_jobs.images.loaded_backbone import LoadedBackbone
from orchard_jobs.images.sources import Vanished, fetch
from orchard_jobs.images.vectors import squares_a_call
from PIL import Image

LIMIT = 10_000
RULES = InputRules(LIMIT)


class MeanColour:
    """A backbone that tells images apart by their mean colour, and counts its batches."""

    input_pixels = 8
    dimension = 3
    views = WHOLE

    def __init__(self, engine: str = "onnx") -> None:
        self.engine = engine
        self.batches: list[int] = []

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        features: NDArray[np.float32] = pixels.mean((1, 2)).astype(np.float32)
        return features


def coloured(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (3 + shade % 3, 2), (shade, shade // 2, 7)).save(file, "PNG")
    return file.getvalue()


def entry(number: int, group: str = "g") -> Entry:
    return Entry(f"s3://landing/{number:05d}.png", "e", 1, "2026-01-01T00:00:00+00:00", None, "compute", group)


def run(source: list[tuple[Entry, bytes | Vanished]], backbone: LoadedBackbone | None = None) -> tuple[list[ImageResult], Tally]:
    tally = Tally()
    return list(compute(source, backbone or MeanColour(), RULES, tally)), tally


def test_good_images_get_their_own_features() -> None:
    outcomes, tally = run([(entry(shade), coloured(shade)) for shade in range(30)])
    for shade, outcome in enumerate(outcomes):
        assert isinstance(outcome, Good)
        assert outcome.entry == entry(shade)
        assert outcome.features.tolist() == [shade, shade // 2, 7]
        assert outcome.features.dtype == np.float32
        assert (outcome.width, outcome.height, outcome.is_backbone_run) == (3 + shade % 3, 2, True)
        assert outcome.content_sha256 == hashlib.sha256(coloured(shade)).hexdigest()
    assert (tally.images, tally.network_runs) == (30, 30)


def test_bad_images_keep_their_reason_and_their_content() -> None:
    outcomes, tally = run(
        [
            (entry(0), b""),
            (entry(1), Vanished("gone since it was listed")),
            (entry(2), coloured(1)),
            (entry(3), b"text"),
            (entry(4), coloured(2)[:40]),
        ]
    )
    assert isinstance(outcomes[2], Good)
    bads = [outcome for outcome in outcomes if isinstance(outcome, Bad)]
    assert [bad.reason for bad in bads] == [Reason.EMPTY, Reason.VANISHED, Reason.NOT_AN_IMAGE, Reason.TRUNCATED]
    assert bads[1].content_sha256 is None
    assert bads[1].message == "gone since it was listed"
    assert bads[2].content_sha256 == hashlib.sha256(b"text").hexdigest()
    assert (tally.images, tally.network_runs) == (5, 1)


def test_a_content_is_run_once_a_group() -> None:
    source: list[tuple[Entry, bytes | Vanished]] = [
        (entry(0, "a"), coloured(1)),
        (entry(1, "a"), coloured(1)),
        (entry(2, "a"), b"text"),
        (entry(3, "a"), b"text"),
        (entry(4, "a"), coloured(1)),
        (entry(5, "b"), coloured(1)),
        (entry(6, "b"), coloured(1)),
    ]
    backbone = MeanColour()
    outcomes, tally = run(source, backbone)
    runs = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Good) and outcome.is_backbone_run]
    assert (len(outcomes), runs) == (7, [0, 5])
    for outcome in (outcomes[0], outcomes[1], outcomes[4], outcomes[6]):
        assert isinstance(outcome, Good)
        assert outcome.features.tolist() == [1, 0, 7]
    assert isinstance(outcomes[3], Bad)
    assert (outcomes[3].reason, outcomes[3].entry) == (Reason.NOT_AN_IMAGE, entry(3, "a"))
    assert (tally.network_runs, sum(backbone.batches)) == (2, 2)


def test_a_known_content_is_neither_decoded_nor_run() -> None:
    contents = [coloured(1), b"no image", coloured(1), coloured(2)]
    rules = InputRules(LIMIT, frozenset(hashlib.sha256(content).hexdigest() for content in contents[:2]))
    backbone, tally = MeanColour(), Tally()
    source = [(entry(number), content) for number, content in enumerate(contents)]
    outcomes = list(compute(source, backbone, rules, tally))
    assert outcomes[:3] == [Known(entry(i), hashlib.sha256(contents[i]).hexdigest()) for i in range(3)]
    assert isinstance(outcomes[3], Good)
    assert (tally.images, tally.network_runs, backbone.batches) == (4, 1, [1])


def content_of(kind: int | str) -> bytes | Vanished:
    if isinstance(kind, int):
        return coloured(kind)
    return b"text" if kind == "bad" else Vanished("gone")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([*range(9), "bad", "gone"])), max_size=150))
def test_nothing_is_lost_and_the_order_is_kept(drawn: list[tuple[int, int | str]]) -> None:
    source: list[tuple[Entry, bytes | Vanished]] = []
    for number, (group, kind) in enumerate(sorted(drawn, key=lambda one: one[0])):
        source.append((entry(number, str(group)), content_of(kind)))
    backbone = MeanColour()
    outcomes, tally = run(source, backbone)
    assert [outcome.entry for outcome in outcomes] == [one for one, _ in source]
    for outcome, (_, content) in zip(outcomes, source, strict=True):
        found = None if isinstance(content, Vanished) else decode(content, LIMIT, 8)
        assert isinstance(outcome, Good) == isinstance(found, Decoded)
        if isinstance(outcome, Good) and isinstance(found, Decoded):
            np.testing.assert_array_equal(outcome.features, MeanColour()(found.squares[0][None])[0])
    contents = {(one.group, content) for one, content in source if isinstance(content, bytes) and content != b"text"}
    assert tally.network_runs == sum(backbone.batches) == len(contents)
    assert all(size <= squares_a_call(backbone) for size in backbone.batches)


@pytest.mark.parametrize(("engine", "size"), [("onnx", 2), ("cuda", 8), ("tensorflow", 8)])
def test_batches_are_full_and_no_outcome_waits_for_long(engine: str, size: int) -> None:
    backbone = MeanColour(engine)
    taken: list[int] = []

    def source() -> Iterator[tuple[Entry, bytes | Vanished]]:
        for number in range(400):
            taken.append(number)
            yield entry(number), coloured(number % 2 if number > 40 else number)

    for number, outcome in enumerate(compute(source(), backbone, RULES, Tally())):
        assert outcome.entry == entry(number)
        assert taken[-1] - number <= 64 + 32 + 2
    assert backbone.batches[:5] == [size] * 5


def test_progress_is_told_for_every_image() -> None:
    told: list[int] = []
    source: list[tuple[Entry, bytes | Vanished]] = [(entry(number), coloured(number)) for number in range(20)]
    assert len(list(compute(source, MeanColour(), RULES, Tally(), told.append))) == 20
    assert told == list(range(1, 21))


def test_a_backbone_that_fails_is_a_job_fault() -> None:
    class Failing(MeanColour):
        def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise MemoryError("no arena")

    with pytest.raises(JobError, match=r"backbone failed on 1 images.*00000\.png.*no arena"):
        run([(entry(0), coloured(1))], Failing())


def test_a_backbone_that_answers_another_shape_is_a_job_fault() -> None:
    class Short(MeanColour):
        def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            return super().__call__(pixels)[:-1]

    with pytest.raises(JobError, match=r"expected float32 \(2, 3\)"):
        run([(entry(0), coloured(1)), (entry(1), coloured(2))], Short())


def test_what_the_source_raises_is_passed_on_after_what_it_gave() -> None:
    def source() -> Iterator[tuple[Entry, bytes | Vanished]]:
        yield entry(0), b"text"
        raise JobError("access denied")

    outcomes = compute(source(), MeanColour(), RULES, Tally())
    assert isinstance(next(outcomes), Bad)
    with pytest.raises(JobError, match="access denied"):
        next(outcomes)


def test_stopping_early_closes_the_source_and_ends_the_thread() -> None:
    closed = threading.Event()

    def source() -> Iterator[tuple[Entry, bytes | Vanished]]:
        try:
            for number in range(10_000):
                yield entry(number), coloured(number % 250)
        finally:
            closed.set()

    outcomes = compute(source(), MeanColour(), RULES, Tally())
    next(outcomes)
    outcomes.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]


def test_tallies_add_up() -> None:
    assert Tally(1, 2, 0.5, 0.25) + Tally(10, 20, 5.0, 2.5) == Tally(11, 22, 5.5, 2.75)
    _, tally = run([(entry(number), coloured(number)) for number in range(20)])
    assert tally.busy_seconds > 0
    assert tally.waiting_seconds > 0


def test_files_to_features(lite0_onnx: LoadedBackbone, tmp_path: Path) -> None:
    entries = []
    for number in range(11):
        file = tmp_path / f"{number} é%20.png"
        file.write_bytes(coloured(number * 20 % 200))
        entries.append(Entry(f"file://{file}", "x", file.stat().st_size, "2026-01-01T00:00:00+00:00", None, "compute", "g"))
    outcomes = list(compute(fetch(entries), lite0_onnx, RULES, Tally()))
    assert [outcome.entry for outcome in outcomes] == entries
    for number, outcome in enumerate(outcomes):
        found = decode(coloured(number * 20 % 200), LIMIT, 224)
        assert isinstance(outcome, Good)
        assert isinstance(found, Decoded)
        np.testing.assert_array_equal(outcome.features, lite0_onnx(found.squares[0][None])[0])
    assert [isinstance(outcome, Good) and outcome.is_backbone_run for outcome in outcomes] == [True] * 10 + [False]
