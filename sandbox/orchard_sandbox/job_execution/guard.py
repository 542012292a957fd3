"""The guard of one submitted job: starts it in a session of its own, and ends it with whoever started the guard.

The standard input's first line is the job: JSON with `command`, `environment`, `folder`, `stdout`, `stderr` and `marker`. Then
comes an order: `end SECONDS` (SIGTERM, and SIGKILL when the seconds are over; at 0 SIGKILL at once). The input's end is an
order, too: a stand-in that dies, be it by kill -9, leaves no job behind. The exit status is the job's, or 128 + the signal.

PySpark's workers leave the job's process group, so its session, descendants and mark count as the job's, not the group alone.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from orchard_sandbox.job_execution.processes import ProcessRecord, end_processes, identity_of

ORPHAN_SECONDS = 3.0


def end_job(record: ProcessRecord, marker: str, seconds: float) -> None:
    """End all processes of the job: SIGTERM, and SIGKILL after the seconds."""
    if seconds:
        end_processes([record], marker, seconds, signals=[(signal.SIGTERM, 1.0)])
    while end_processes([record], marker, 1.0, signals=[(signal.SIGKILL, 1.0)])[1]:
        pass


def follow_orders(orders: IO[bytes], record: ProcessRecord, marker: str) -> None:
    """Carry out one order."""
    words = orders.readline().split()
    end_job(record, marker, float(words[1]) if words else ORPHAN_SECONDS)


def main() -> int:
    """Run the job to its end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # it ends when the job has ended, and the job with the input
    # Unbuffered: a buffer's lock, held by the thread that waits for an order, would abort the exit.
    with open(0, "rb", buffering=0) as orders:
        job = json.loads(orders.readline())
        marker = job["marker"]
        with Path(job["stdout"]).open("ab") as stdout, Path(job["stderr"]).open("ab") as stderr:
            process = subprocess.Popen(
                job["command"],
                env=job["environment"],
                cwd=job["folder"],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        record = ProcessRecord("job", process.pid, identity_of(process.pid) or "ended", time.time())
        threading.Thread(target=follow_orders, args=(orders, record, marker), daemon=True).start()
        status = process.wait()
        end_job(record, marker, 0.0)  # what the job left behind
        return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
