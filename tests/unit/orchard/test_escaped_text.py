"""A key that holds control characters: no line of a log, no error and no command shows them as they are."""

import logging
import os
from typing import Any

import pytest
from botocore.exceptions import ClientError
from orchard.batch import run
from orchard.cli import main
from orchard.landing_zone.listing import S3LandingZone
from orchard.outcomes import Failed
from orchard.settings import Settings
from orchard.tables.commit_rule import Tables
from orchard.tables.reports import PlannedJobs
from orchard.workflow.notify import LogNotifier
from orchard_jobs.contract.layout import FaultPath
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.errors import OrchardError
from orchard_jobs.escaping import escaped
from support.fake_jobs import FakeJobs
from support.faked_flow import plan, run_batch

DAY = "2026-01-01"
HOSTILE = "\n\x1b[31m\r\x9b2J\u2028\u202e"
ESCAPED = r"\n\x1b[31m\r\x9b2J\u2028\u202e"
BUCKET = {f"images/{DAY}/app{HOSTILE}le/x{HOSTILE}.jpg": b"a", f"images/{DAY}/pear/b.jpg": b"b"}


def has_raw(text: str) -> bool:
    """Tell whether a text holds what it should show escaped."""
    return any(char in text for char in "\x1b\r\x9b\u2028\u202e") or "app\n" in text


class Renaming(FakeJobs):
    """Jobs whose rows are of other images than the manifest's."""

    def _rows(self, head: ManifestHead) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        good, bad = super()._rows(head)
        return [row | {"image_uri": f"{row['image_uri']}{HOSTILE}"} for row in good], bad


def test_an_ordinary_text_stays_as_it_is() -> None:
    assert escaped("Äpfel 日本 😀 a\\b.jpg") == "Äpfel 日本 😀 a\\b.jpg"
    assert escaped(f"a{HOSTILE}\udce9\x00") == f"a{ESCAPED}\\udce9\\x00"
    assert escaped("a\nb", kept="\n") == "a\nb"


def test_a_hostile_key_goes_through_the_log_escaped(tables: Tables, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run_batch(tables, settings, DAY, BUCKET)
    assert "planned batch_id" in caplog.text
    assert not has_raw(caplog.text)


def test_an_audit_tells_a_hostile_key_escaped(tables: Tables, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    head = plan(tables, settings, DAY, BUCKET)
    assert head is not None
    Renaming(tables, BUCKET).featurize(head)
    ended = run.validate(tables, settings, PlannedJobs.of_batch(tables.warehouse, head))
    assert isinstance(ended, Failed)
    assert ESCAPED in str(ended.error)
    assert not has_raw(str(ended.error))
    assert not has_raw(caplog.text)


def test_status_tells_a_job_faults_text_escaped(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = plan(tables, settings, DAY, BUCKET)
    assert head is not None
    work = PlannedJobs.of_batch(tables.warehouse, head).work("featurize")
    tables.warehouse.rewrite(str(FaultPath(work)), b'{"at": "now", "error": "no app\\n\\u001b[31m\\r\\u009b"}')
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    assert main(["status", "--no-listing"]) == 1
    out = capsys.readouterr().out
    assert r"it failed at now: no app\n\x1b[31m\r\x9b" in out
    assert not has_raw(out)


def test_a_librarys_words_about_a_key_are_logged_escaped(caplog: pytest.LogCaptureFixture) -> None:
    class Client:
        def head_object(self, **_: str) -> None:
            raise ClientError({"Error": {"Code": "404", "Message": HOSTILE}}, "HeadObject")

    assert not S3LandingZone(Client(), "landing").has_false_md5(f"s3://landing/a{HOSTILE}")
    assert caplog.messages[0].count(ESCAPED) == 2
    assert not has_raw(caplog.text)


def test_a_failed_task_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    class Task:
        dag_id, task_id, run_id, try_number = "image_batches", "validate", "r1", 2

    LogNotifier().notify({"task_instance": Task(), "exception": ValueError(f"app{HOSTILE}")})
    assert caplog.text.count("\n") == 1
    assert f"error=app{ESCAPED}" in caplog.text


def test_an_error_shows_no_control_character() -> None:
    assert str(OrchardError(f"key a\x1b[31m{os.sep}\r\udce9")) == r"key a\x1b[31m/\r\udce9"


def test_a_command_whose_fault_quotes_a_user_says_it_escaped(
    tables: Tables, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHARD_WAREHOUSE", settings.warehouse)
    assert main(["export", "runs", "--to", "/no\x1b[31m\r/x.csv"]) == 2
    assert r"/no\x1b[31m\r is not there" in capsys.readouterr().err
