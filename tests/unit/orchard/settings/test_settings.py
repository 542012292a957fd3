"""Settings: one table, and an error that names the variable, the value and what is wanted."""

import json
import traceback
from typing import Any

import pytest
from airflow.sdk import BaseNotifier
from orchard.settings import Settings, describe
from orchard.workflow.notify import LogNotifier, failure_notifier
from orchard_jobs.errors import ConfigurationError

MINIMAL = {"ORCHARD_WAREHOUSE": "/data/warehouse"}


def test_the_defaults_are_whole() -> None:
    settings = Settings.from_environment(MINIMAL)
    assert settings.warehouse == "file:///data/warehouse"
    assert (settings.landing_zone.bucket, settings.landing_zone.prefix) == ("landing", "images/")
    assert settings.landing_zone.batch_prefix("2026-01-01") == "images/2026-01-01/"
    assert settings.backbone.dimension == 1280


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("WAREHOUSE", "", "ORCHARD_WAREHOUSE is not set: give an absolute path"),
        ("WAREHOUSE", "ftp://x/y", "neither an absolute path nor"),
        ("LANDING", "/folder", "not of the form s3://bucket/prefix"),
        ("BACKBONE", "vgg", "set ORCHARD_BACKBONE to one of efficientnet_lite0, efficientnet_lite2, resnet50, color_histogram$"),
        ("VIEWS", "corner", r"ORCHARD_VIEWS='corner': 'corner' is no view: give `whole`, `centre:0\.875`"),
        ("VIEWS", "whole,whole", "a view stands there twice"),
        ("ENGINE", "torch", "onnx, cuda, tensorflow, numpy$"),
        ("BACKBONE", "color_histogram", "does not run on ORCHARD_ENGINE=onnx: set the engine to numpy$"),
        ("ENGINE", "numpy", "does not run on ORCHARD_ENGINE=numpy: set the engine to onnx or cuda or tensorflow$"),
        ("WEIGHTS_FILE", "/x.h5", "come together"),
        ("PIXEL_LIMIT", "0", "must be a whole number above 0"),
        *(
            ("COMPONENTS", value, "neither a whole number above 0")
            for value in ("0", "-3", "1.0", "2.5", "0.0", "nan", "inf", "all")
        ),
        ("MODEL_RETENTION_DAYS", "-1", "must be a number of days from 0.05 to 365"),
        ("MODEL_RETENTION_DAYS", "nan", "must be a number of days from 0.05 to 365"),
        ("PIXEL_LIMIT", "2147483649", "must be a whole number above 0, at most 2147483648$"),
        ("PIXEL_LIMIT", "many", "must be a whole number above 0"),
        ("MAX_QUARANTINED_SHARE", "2", "must be a number from 0 to 1"),
        ("WAREHOUSE", "/data/or#chard", "holds #"),
        ("WAREHOUSE", "s3://", "neither an absolute path nor"),
        ("QUIET_SECONDS", "ten", "must be a number of seconds from 0 to 1e9, such as 600$"),
        ("EXECUTORS", "two", "must be a whole number above 0$"),
        ("MAX_EXECUTOR_HOURS", "ten", "must be a number of hours"),
        ("NOTIFIER_ARGUMENTS", "{", "not a JSON object"),
        ("QUIET_SECONDS", "-1", "must be a number of seconds from 0"),
        ("POLL_SECONDS", "0", "must be a number of seconds from 0.1"),
        ("STALL_MINUTES", "0", "must be a number of minutes from 0.1"),
        ("STALL_MINUTES", "nan", "must be a number of minutes from 0.1"),
        ("OBJECT_LIMIT", "256MB", "must be a whole number above 0"),
        ("DRIVER_MEMORY", "lots", "not a size such as `2g` or `1536m`"),
        ("WAIT_SECONDS", "inf", "must be a number of seconds from 0"),
        ("GRACE_SECONDS", "nan", "must be a number of seconds from 0"),
        ("RETRIES", "-3", "must be a whole number from 0"),
        ("BATCH_KEY_FORMAT", "%d", "gives two days the same key"),
        ("NOTIFIER_ARGUMENTS", "[]", "not a JSON object"),
        ("SCHEDULE", "every day", "not a cron expression"),
        ("RECONCILE_SCHEDULE", "hourly", "not a cron expression"),
        ("UPLOADS_QUEUE", "arn:aws:sqs:us-east-1:1:q", "not an SQS queue URL"),
        ("BATCH_KEY_FORMAT", "%Y/%m/%d", "cannot be part of a path"),
        *(("BATCH_KEY_FORMAT", text, "cannot be read back as a day") for text in ("%F", "%Y-%-m-%-d", "%s", "%Y-%Y-%m-%d")),
        *((name, "0 0 31 2 *", "never fires") for name in ("SCHEDULE", "RECONCILE_SCHEDULE", "CLEAN_SCHEDULE")),
        ("SCHEDULE", "0 0 31 4,6 *", "never fires"),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Settings.from_environment({**MINIMAL, f"ORCHARD_{variable}": value})
    assert f"ORCHARD_{variable}" in str(caught.value)


@pytest.mark.parametrize("key_format", ["%Y-%m-%d", "%Y%m%dT%H", "%Y-%j", "%G-W%V-%u", "%d-%b-%Y", "batch-%y%m%d"])
def test_a_key_format_that_is_read_back_is_taken(key_format: str) -> None:
    zone = Settings.from_environment({**MINIMAL, "ORCHARD_BATCH_KEY_FORMAT": key_format}).landing_zone
    assert zone.key_format == key_format


@pytest.mark.parametrize("schedule", ["0 0 29 2 *", "@daily", "0 0 31 2 1"])
def test_a_schedule_that_fires_seldom_is_taken(schedule: str) -> None:
    assert Settings.from_environment({**MINIMAL, "ORCHARD_SCHEDULE": schedule}).runs.schedule == schedule


def slips(name: str) -> set[str]:
    """Return a setting's name with a plural or singular slip of each of its words."""
    words = name.split("_")
    changed = ((*words[:n], word[:-1] if word.endswith("S") else f"{word}S", *words[n + 1 :]) for n, word in enumerate(words))
    return {"_".join(parts) for parts in changed if parts[0] == "ORCHARD"}


@pytest.mark.parametrize("name", [name for name, _, _ in describe()])
def test_a_plural_slip_of_every_setting_is_told(name: str) -> None:
    for slip in slips(name):
        with pytest.raises(ConfigurationError, match=f"^unknown setting {slip}; did you mean {name}[?]"):
            Settings.from_environment({**MINIMAL, slip: "x"})


@pytest.mark.parametrize("slip", ["TARGAT", "TAGRET", "ENGIN", "SHEDULE", "JOBS_URL", "EXECUTER_CORES"])
def test_a_slip_in_a_short_name_is_told(slip: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^unknown setting ORCHARD_{slip}; did you mean ORCHARD_"):
        Settings.from_environment({**MINIMAL, f"ORCHARD_{slip}": "x"})


def test_a_misspelt_setting_is_told_from_a_variable_of_somebody_else() -> None:
    with pytest.raises(ConfigurationError, match=r"^unknown setting ORCHARD_COMPONETS; did you mean ORCHARD_COMPONENTS\?"):
        Settings.from_environment({**MINIMAL, "ORCHARD_COMPONETS": "secret"})
    own = ("HOME", "PYTHON", "SHARED_DATA", "OWNER_PID", "STACK_ID", "SANDBOX_PYTHON", "TEST_JOBS_PYTHON", "SERVICE_CREDENTIAL")
    others = ("VERSION", "SOURCE_URL", "UPLOADS_QUEUE_ARN", "EMR_CLUSTER_ID", "JOBS_PYTHONPATH", "AWS_CONN_URI", "ENGINE_HOME")
    given = {f"ORCHARD_{name}": "x" for name in (*own, *others)}
    Settings.from_environment({**MINIMAL, **given, "COMPONETS": "3", "ORCHARD_COMPONETS": ""})


@pytest.mark.parametrize(("text", "seconds"), [("0.2", 1), ("2", 2), ("15", 15), ("60", 15)])
def test_a_clusters_job_is_polled_as_often_as_a_batch_or_each_15_seconds(text: str, seconds: int) -> None:
    assert Settings.from_environment({**MINIMAL, "ORCHARD_POLL_SECONDS": text}).runs.job_poll_seconds == seconds


def test_resnet50_takes_a_file_with_its_digest() -> None:
    weights = {"ORCHARD_BACKBONE": "resnet50", "ORCHARD_WEIGHTS_FILE": "/w.h5", "ORCHARD_WEIGHTS_SHA256": "ab" * 32}
    one = Settings.from_environment({**MINIMAL, **weights}).backbone
    moved = Settings.from_environment({**MINIMAL, **weights, "ORCHARD_WEIGHTS_FILE": "/elsewhere.h5"}).backbone
    other = Settings.from_environment({**MINIMAL, "ORCHARD_BACKBONE": "resnet50"}).backbone
    assert one.id == moved.id != other.id
    assert one.dimension == 2048


def test_views_make_another_backbone() -> None:
    whole, views = (
        Settings.from_environment({**MINIMAL, "ORCHARD_VIEWS": text}).backbone for text in ("whole", "centre:0.8, centre:0.60")
    )
    assert whole == Settings.from_environment(MINIMAL).backbone
    assert [str(view) for view in views.views] == ["centre:0.6", "centre:0.8"]
    assert views.id != whole.id == views.export_id


@pytest.mark.parametrize(("text", "value"), [("100", 100), ("1", 1), ("0.95", 0.95), ("1e-3", 0.001)])
def test_components_are_a_number_or_a_share(text: str, value: float) -> None:
    found = Settings.from_environment({**MINIMAL, "ORCHARD_COMPONENTS": text}).model.components
    assert (found, type(found)) == (value, type(value))


def test_the_engine_is_part_of_the_backbone() -> None:
    tensorflow = Settings.from_environment({**MINIMAL, "ORCHARD_ENGINE": "tensorflow"}).backbone
    assert tensorflow.id != Settings.from_environment(MINIMAL).backbone.id


def test_every_setting_is_described() -> None:
    names = [name for name, _, _ in describe()]
    assert len(names) == len(set(names))
    assert all(text for _, _, text in describe())


def test_the_notifier_is_a_setting() -> None:
    assert isinstance(failure_notifier(Settings.from_environment(MINIMAL)), LogNotifier)
    for wrong in ("nowhere.Notifier", "orchard.notify.Missing", "pathlib.Path"):
        with pytest.raises(ConfigurationError, match="ORCHARD_NOTIFIER"):
            failure_notifier(Settings.from_environment({**MINIMAL, "ORCHARD_NOTIFIER": wrong}))


class Webhook(BaseNotifier):
    """A notifier that quotes its argument where it refuses it."""

    def __init__(self, address: str) -> None:
        super().__init__()
        raise ValueError(f"cannot reach {address}")

    def notify(self, context: Any) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"address": "s3cret"}, "ValueError with the arguments address, whose values are not shown"),
        ({"adress": "s3cret"}, "missing a required argument: 'address'"),
        ({"address": "x", "token": "s3cret"}, "got an unexpected keyword argument 'token'"),
    ],
)
def test_a_notifier_that_refuses_its_arguments_tells_no_value(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, str], words: str
) -> None:
    monkeypatch.setattr("orchard.notify.Webhook", Webhook, raising=False)
    given = {"ORCHARD_NOTIFIER": "orchard.notify.Webhook", "ORCHARD_NOTIFIER_ARGUMENTS": json.dumps(arguments)}
    with pytest.raises(ConfigurationError) as caught:
        failure_notifier(Settings.from_environment(MINIMAL | given))
    assert words in str(caught.value)
    assert "ORCHARD_NOTIFIER_ARGUMENTS" in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_the_log_notifier_names_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    class Task:
        dag_id, task_id, run_id, try_number = "image_batches", "validate", "r1", 2

    class Run:
        partition_key = "2026-01-01"

    LogNotifier().notify({"task_instance": Task(), "dag_run": Run(), "exception": ValueError("3 of 9 checks failed")})
    assert "task=validate batch_id=2026-01-01" in caplog.text
    assert "3 of 9 checks failed" in caplog.text
