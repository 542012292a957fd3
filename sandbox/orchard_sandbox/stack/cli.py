"""The commands behind the Makefile: run, upload, status, stop, clean. Their options are environment variables, set by make.

`stop`, `status` and `clean` import the standard library only, so they work when `.venv` is gone.
"""

import argparse
import io
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchard_sandbox.errors import SandboxError
from orchard_sandbox.job_execution.processes import is_running
from orchard_sandbox.stack.stack_paths import ROOT, USER, Layout
from orchard_sandbox.stack.stack_state import hold_lock, read_state, remove_home, stop_stack, take_lock

if TYPE_CHECKING:
    from orchard_sandbox.stack.batches import LocalBatch
    from orchard_sandbox.stack.following import Follower


def main() -> int:
    """Run one command; an error is one line, and `make stop` ends what a Ctrl-C leaves behind."""
    parser = argparse.ArgumentParser(prog="orchard_sandbox", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=sorted(_COMMANDS))
    command = parser.parse_args().command
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # `make run | cat` shows each line at once
    try:
        return _COMMANDS[command](Layout.of_environment())
    except SandboxError as error:
        print(f"orchard: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\norchard: interrupted; `make run` continues it, `make stop` ends what still runs", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"orchard: {error}; `make stop` ends what runs, `make clean` frees the disk", file=sys.stderr)
        return 1


def _run(layout: Layout) -> int:
    from orchard_sandbox.s3.landing import unread_messages
    from orchard_sandbox.stack.command import write_aws_keys, write_command
    from orchard_sandbox.stack.following import ARRIVALS, IMAGE_BATCHES, MODEL_DAGS, ON_ARRIVAL, Follower
    from orchard_sandbox.stack.supervisor import Supervisor

    layout.create()
    with hold_lock(layout, "run"):
        _check_settings(layout)
        batches = _batches(layout, os.environ)
        supervisor = Supervisor(layout, os.environ)
        state, api = supervisor.start((IMAGE_BATCHES, ON_ARRIVAL, ARRIVALS, *MODEL_DAGS))
        # Readers of an s3: warehouse in this process need what the stack's processes have.
        os.environ.update({name: value for name, value in supervisor.environment.items() if name.startswith("AWS_")})
        write_command(layout, supervisor.environment)
        write_aws_keys(layout, supervisor.environment)
        unread = partial(unread_messages, supervisor.environment)
        follower = Follower(api, supervisor.environment, supervisor.check, unread=unread)
        uploaded = _upload_batches(batches, supervisor.environment)
        follower.start([batch.name for batch in batches])
        failed_model = follower.settle(has_uploaded=uploaded > 0)
        print()
        results = follower.results()
        follower.screen.show_results(results)
        for batch in (result.batch for result in results if result.published and result.published.has_no_good_image):
            print(f"warning: batch {batch} has no good image: the table `quarantine` says why")
        _print_addresses(layout, supervisor.environment, state.api_address)
        return _report_failures(follower, follower.failed_runs() + ([failed_model] if failed_model else []))


def _check_settings(layout: Layout) -> None:
    """Refuse a wrong setting before anything is started or stopped, with the message that a DAG file would give."""
    from orchard.settings import Settings
    from orchard_jobs.contract.locations import local_path
    from orchard_jobs.errors import ConfigurationError

    from orchard_sandbox.stack.process_environment import settings_environment

    try:
        environment = settings_environment(layout, os.environ)
        settings = Settings.from_environment(environment)
        if environment.get("ORCHARD_NOTIFIER") or environment.get("ORCHARD_NOTIFIER_ARGUMENTS"):
            # With it comes Airflow, which takes more than a second.
            from orchard.workflow.notify import failure_notifier

            failure_notifier(settings)
    except ConfigurationError as error:
        raise SandboxError(str(error)) from error
    folder = local_path(settings.warehouse)
    if folder is not None:
        _check_folder(Path(folder))


def _check_folder(warehouse: Path) -> None:
    try:
        warehouse.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=warehouse):
            pass
    except OSError as error:
        raise SandboxError(
            f"WAREHOUSE={warehouse} cannot be written: {error}: choose another folder, or fix its permissions"
        ) from error


def _upload(layout: Layout) -> int:
    """Upload to the embedded stack, or with TO to another S3 server, by the log-in of the AWS_* variables."""
    if os.environ.get("TO"):
        if not (os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY")):
            raise SandboxError("TO needs the server's credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        from botocore.exceptions import BotoCoreError, ClientError

        layout.create()  # the drawn samples lie there
        try:
            _upload_batches(_batches(layout, os.environ), os.environ | {"AWS_ENDPOINT_URL": os.environ["TO"]})
        except (BotoCoreError, ClientError, ValueError) as error:  # the last: of an address that is none
            raise SandboxError(
                f"cannot upload to TO={os.environ['TO']}: {error}: check that it answers, and the credentials"
            ) from error
        return 0
    state = read_state(layout)
    if "s3-stand-in" not in state.processes or not is_running(state.processes["s3-stand-in"]):
        raise SandboxError("the stack does not run: `make run` starts it, and uploads too")
    from orchard_sandbox.s3.landing import s3_environment

    _upload_batches(_batches(layout, os.environ), s3_environment(state.s3_address, layout.secret("s3")))
    return 0


def status(layout: Layout) -> int:
    """Say which processes run, and where the S3 stand-in and the UI are."""
    state = read_state(layout)
    if not state.processes:
        print(f"nothing runs ({layout.home}); `make run` starts it")
        return 0
    for name, record in state.processes.items():
        up = f"up {timedelta(seconds=int(time.time() - record.started_at))}, process {record.pid}"
        print(f"{name:<14} {up if is_running(record) else 'down'}")
    print(f"S3 stand-in    {state.s3_address}  (`. {layout.aws_keys}` sets its keys in a shell)")
    _print_login(layout, state.api_address)
    return 0


def _stop(layout: Layout) -> int:
    if not layout.is_ours():
        print("nothing runs: there is no stack here")
        return 0
    with take_lock(layout, "stop"):
        begin = time.monotonic()
        ended, left = stop_stack(layout)
    print(f"stop: {ended} processes ended in {time.monotonic() - begin:.1f} s, {left} left")
    return 1 if left else 0


def _clean(layout: Layout) -> int:
    if not layout.home.exists():
        return 0
    status = _stop(layout)
    if status == 0:
        remove_home(layout)
        print(f"clean: {layout.home} is removed")
    return status


_COMMANDS = {"run": _run, "upload": _upload, "status": status, "stop": _stop, "clean": _clean}


def _batches(layout: Layout, variables: Mapping[str, str]) -> "list[LocalBatch]":
    """Return the batches that IMAGES, BATCHES and BATCH name; of the drawn samples without IMAGES."""
    from orchard_sandbox.stack.batches import KEY_FORMAT, find_batches

    chosen, day = tuple(variables.get("BATCHES", "").split()), variables.get("BATCH") or None
    if variables.get("IMAGES"):
        key_format = variables.get("ORCHARD_BATCH_KEY_FORMAT") or KEY_FORMAT
        return find_batches(Path(variables["IMAGES"]).expanduser().absolute(), chosen, day, key_format)
    from orchard_sandbox.stack.samples import draw_samples

    draw_samples(layout.samples)
    return find_batches(layout.samples, chosen, day)


def _upload_batches(batches: "list[LocalBatch]", server: Mapping[str, str]) -> int:
    """Upload what differs, and return the number of uploaded files."""
    from orchard_sandbox.stack.upload import s3_client, upload_batch

    s3, uploaded = s3_client(server), 0
    for batch in batches:
        begin = time.monotonic()
        done = upload_batch(s3, batch)
        uploaded += done
        hidden = f", {batch.hidden} hidden left out" if batch.hidden else ""
        counts = f"{done} uploaded, {len(batch.files) - done} there already{hidden}"
        print(f"upload: {batch.name:<12} {counts}, {time.monotonic() - begin:.1f} s", flush=True)
    return uploaded


def _report_failures(follower: "Follower", failed: list[tuple[str, str]]) -> int:
    for dag_id, run_id in failed:
        print(f"\norchard: {dag_id}, run {run_id}: {follower.failures(dag_id, run_id)}", file=sys.stderr)
    return 1 if failed else 0


def _print_addresses(layout: Layout, environment: Mapping[str, str], api_address: str) -> None:
    from orchard_jobs.contract.locations import below, is_s3, local_path

    warehouse = environment["ORCHARD_WAREHOUSE"]
    paths = (layout.airflow_python, layout.command)
    python, command = (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path for path in paths)
    keys = f". {shlex.quote(str(layout.aws_keys))}; " if is_s3(warehouse) else ""
    table = f'DeltaTable("{below(local_path(warehouse) or warehouse, "features")}")'
    print(f"\ntables: {warehouse}")
    print(f"read:   {keys}{python} -c 'from deltalake import DeltaTable; print({table}.to_pandas())'")
    print(f"ask:    {command} status   ({command} --help: embed images, export tables, clean up, ...)")
    _print_login(layout, api_address)


def _print_login(layout: Layout, api_address: str) -> None:
    print(f"UI:     {api_address}  user {USER}, password in {layout.password_file}")
