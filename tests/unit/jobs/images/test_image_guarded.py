"""Guarded decoding: the same answers as unguarded, and a file that kills its decoder ends nothing else."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from orchard_jobs.contract.quarantine import Reason
from orchard_jobs.contract.views import WHOLE
from orchard_jobs.errors import JobError
from orchard_jobs.images import decoder_process, guarded
from orchard_jobs.images.decode import Decoded, Rejected, decode
from orchard_jobs.images.guarded import GuardedDecoder
from PIL import Image
from support import bad_decoder
from support.limited_memory import limited_memory
from support.pictures import LIMIT, picture, saved

BAD = (sys.executable, "-P", bad_decoder.__file__)
PNG = saved(picture(), "PNG")


@pytest.fixture
def bad() -> Iterator[GuardedDecoder]:
    decoder = GuardedDecoder(BAD)
    yield decoder
    decoder.stop()


def is_good(found: Decoded | Rejected) -> bool:
    expected = decode(PNG, LIMIT, 224)
    assert isinstance(expected, Decoded)
    return isinstance(found, Decoded) and np.array_equal(found.squares[0], expected.squares[0])


@pytest.mark.parametrize("content", [PNG, saved(picture(8, 6), "JPEG"), b"", b"text", PNG[:60], saved(picture(), "TIFF")])
def test_answers_are_those_of_the_decoder_itself(content: bytes) -> None:
    found, expected = guarded.decode(content, LIMIT, 224), decode(content, LIMIT, 224)
    if isinstance(found, Decoded) and isinstance(expected, Decoded):
        assert np.array_equal(found.squares[0], expected.squares[0])
        assert (found.width, found.height, found.squares[0].dtype) == (expected.width, expected.height, expected.squares[0].dtype)
    else:
        assert found == expected


def test_each_request_has_its_own_limit_and_square() -> None:
    assert guarded.decode(PNG, 599, 224) == Rejected(Reason.OVER_PIXEL_LIMIT, "600 pixels, the limit is 599")
    small = guarded.decode(PNG, 600, 32)
    assert isinstance(small, Decoded)
    assert small.squares[0].shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"abort", Rejected(Reason.KILLED_DECODER, "the decoder died of SIGABRT")),
        (b"killed", Rejected(Reason.KILLED_DECODER, "the decoder died of SIGKILL")),
        (b"exit", Rejected(Reason.KILLED_DECODER, "the decoder ended with status 3")),
        (b"reserve", Rejected(Reason.TOO_COSTLY, "decoding takes more than 1200000000 bytes of memory")),
        (b"spin", Rejected(Reason.TOO_COSTLY, "decoding takes more than 20 CPU-seconds")),
    ],
)
def test_what_ends_a_decoder_is_set_aside_and_the_next_is_decoded(bad: GuardedDecoder, content: bytes, found: Rejected) -> None:
    assert is_good(bad.decode(PNG, LIMIT, 224))
    assert bad.decode(content, LIMIT, 224) == found
    assert is_good(bad.decode(PNG, LIMIT, 224))


def test_a_decoder_that_hangs_is_ended() -> None:
    decoder = GuardedDecoder(BAD, hang_seconds=0.3)
    found = decoder.decode(b"sleep", LIMIT, 224)
    assert found == Rejected(Reason.KILLED_DECODER, "the decoder hung: it used no CPU for 0.3 s")
    decoder.stop()


def test_a_decoder_that_is_stopped_takes_no_more_bytes_and_is_ended() -> None:
    decoder = GuardedDecoder(BAD, hang_seconds=1.0)
    assert is_good(decoder.decode(PNG, LIMIT, 224))
    assert decoder._process is not None
    stopped = decoder._process
    stopped.send_signal(signal.SIGSTOP)
    # Beyond what the connection buffers.
    found = decoder.decode(b"text" * 4_000_000, LIMIT, 224)
    assert isinstance(found, Rejected)
    assert found.reason == Reason.NOT_AN_IMAGE
    assert stopped.poll() == -signal.SIGKILL
    decoder.stop()


@pytest.mark.parametrize("begun", [b"\0\0\0\x11d", b"\0\0", b"\0\0\0\x11d" + bytes(16) + b"\0\x02\x4c\0" + bytes(1000)])
def test_a_decoder_that_is_stopped_within_its_answer_is_ended(begun: bytes) -> None:
    program = (
        "import os, sys, time; fd = int(sys.argv[1]); os.write(fd, b'\\0\\0\\0\\x01r'); os.read(fd, 99)\n"
        f"os.write(fd, {begun!r}); time.sleep(3600)"
    )
    decoder = GuardedDecoder((sys.executable, "-c", program), hang_seconds=0.3)
    found = decoder.decode(b"text", LIMIT, 224)
    assert found == Rejected(Reason.KILLED_DECODER, "the decoder hung: it used no CPU for 0.3 s")


def test_a_decoder_that_hangs_before_it_is_ready_is_a_job_fault() -> None:
    sleeper = GuardedDecoder((sys.executable, "-c", "import time; time.sleep(3600)"), hang_seconds=0.3)
    with pytest.raises(JobError, match="3 decoders ended with status -9 before they were ready"):
        sleeper.decode(PNG, LIMIT, 224)


def test_one_death_alone_tells_nothing_of_an_image(bad: GuardedDecoder, tmp_path: Path) -> None:
    found = bad.decode(b"once " + str(tmp_path / "mark").encode(), LIMIT, 224)
    assert isinstance(found, Rejected)
    assert found.reason == Reason.NOT_AN_IMAGE
    assert (tmp_path / "mark").exists()


def test_a_decoder_that_ends_between_two_images_is_started_again(bad: GuardedDecoder) -> None:
    assert is_good(bad.decode(PNG, LIMIT, 224))
    assert bad._process is not None
    bad._process.send_signal(signal.SIGKILL)
    assert is_good(bad.decode(PNG, LIMIT, 224))


def test_it_is_given_no_credential(bad: GuardedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = bad.decode(b"environment", LIMIT, 224)
    assert isinstance(found, Rejected)
    assert "PYTHONPATH" in found.message.split()
    assert not [name for name in found.message.split() if name.startswith(("AWS", "ORCHARD"))]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux chooses by this score whom to end")
def test_when_memory_runs_out_the_decoder_is_ended_first(bad: GuardedDecoder) -> None:
    assert bad.decode(b"score", LIMIT, 224) == Rejected(Reason.EMPTY, "1000")


def test_a_decoder_that_cannot_be_started_is_a_job_fault() -> None:
    with pytest.raises(JobError, match="cannot start the decoder's process '/nowhere/python'"):
        GuardedDecoder(("/nowhere/python",)).decode(PNG, LIMIT, 224)
    with pytest.raises(JobError, match="3 decoders ended with status 7 before they were ready"):
        GuardedDecoder((sys.executable, "-c", "import sys; sys.exit(7)")).decode(PNG, LIMIT, 224)


def test_where_no_process_may_be_started_images_are_decoded_unguarded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    forbidden = GuardedDecoder((str(tmp_path),))  # a folder, which nobody may run
    monkeypatch.setattr(guarded, "_decoder", lambda: forbidden)
    guarded.start()
    assert [is_good(guarded.decode(PNG, LIMIT, 224)) for _ in range(2)] == [True, True]
    assert capfd.readouterr().err.count("without a guard") == 1


def test_many_threads_take_turns(bad: GuardedDecoder) -> None:
    found: dict[int, bool] = {}

    def use(number: int) -> None:
        content = b"abort" if number == 3 else PNG
        found[number] = is_good(bad.decode(content, LIMIT, 224))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(8)] == [number != 3 for number in range(8)]


def test_an_answer_that_cannot_be_read_is_a_death() -> None:
    from multiprocessing import Pipe

    ours, theirs = Pipe()
    with ours, theirs:
        for answer in ([b""], [b"d123"], [b"x{"], [b'x["no reason", ""]'], [b"d" + bytes(16), b"12"]):
            for message in answer:
                theirs.send_bytes(message)
            with pytest.raises(EOFError):
                decoder_process.read_answer(ours, 224, WHOLE)


def test_a_decoder_ends_with_the_process_that_uses_it(tmp_path: Path) -> None:
    use = "from orchard_jobs.images import guarded; guarded.decode(b'x', 9, 8); print(guarded._decoder()._process.pid)"
    pid = subprocess.run([sys.executable, "-c", use], check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    # It is nobody's child by now: where it is still there, it is ending.
    for _ in range(600):
        if not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        threading.Event().wait(0.05)
    pytest.fail(f"the decoder {pid} outlived its user")


def test_a_picture_at_the_pixel_limit_fits_the_bound_on_memory() -> None:
    # Laid over white, it is held more often than a picture of any other mode.
    found = guarded.decode(saved(Image.new("RGBA", (7071, 7071)), "PNG", compress_level=1), LIMIT, 224)
    assert isinstance(found, Decoded), found


def test_a_decoder_that_runs_out_of_memory_takes_nothing_with_it() -> None:
    use = (
        "import sys; from orchard_jobs.images.guarded import GuardedDecoder\n"
        "decoder = GuardedDecoder(sys.argv[1:])\n"
        "found = [decoder.decode(content, 50_000_000, 224) for content in (b'eat', b'text')]\n"
        "print([(one.reason.value, one.message.partition(',')[0]) for one in found])\n"
    )
    with limited_memory(400_000_000) as memory:
        command = memory.command([sys.executable, "-c", use, *BAD])
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "('killed its decoder', 'the decoder died of SIGKILL'), ('not an image', " in done.stdout
