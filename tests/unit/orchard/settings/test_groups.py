"""Groups of settings: which variables they hold, how a text becomes their value, and each target's own rules."""

import json
import traceback
from typing import Any

import pytest
from orchard.settings import Settings, describe, describe_groups
from orchard.settings.targets import TARGETS, TargetSettings
from orchard_jobs.errors import ConfigurationError

MINIMAL = {"ORCHARD_WAREHOUSE": "/data/warehouse"}
IN_S3 = MINIMAL | {"ORCHARD_JOBS_URI": "s3://code/jobs", "ORCHARD_JOBS_ENVIRONMENT": "s3://code/environment.tar.gz"}
IN_WORKSPACE = MINIMAL | {"ORCHARD_TARGET": "databricks", "ORCHARD_JOBS_URI": "/Volumes/main/jobs/code"}
ON_EMR = IN_S3 | {"ORCHARD_TARGET": "emr", "ORCHARD_EMR_CLUSTER": "{}"}
ON_EMR_SERVERLESS = IN_S3 | {
    "ORCHARD_TARGET": "emr_serverless",
    "ORCHARD_EMR_APPLICATION": "00f1",
    "ORCHARD_EMR_ROLE": "arn:aws:iam::123456789012:role/jobs",
}


def check(variables: dict[str, str]) -> None:
    Settings.from_environment(variables).check_target()


def test_every_setting_stands_in_one_group() -> None:
    titles = [title for title, _ in describe_groups()]
    assert len(titles) == len(set(titles))
    assert all(rows for _, rows in describe_groups())
    assert [row for _, rows in describe_groups() for row in rows] == describe()
    assert len({name for name, _, _ in describe()}) == len(describe()) == 58


def test_every_target_has_a_group_of_its_name() -> None:
    settings = Settings.from_environment(MINIMAL)
    groups = {name for name, value in vars(settings).items() if isinstance(value, TargetSettings)}
    assert groups == set(TARGETS)


@pytest.mark.parametrize("name", ["SCHEDULE", "RECONCILE_SCHEDULE", "CLEAN_SCHEDULE"])
def test_no_schedule_is_none(name: str) -> None:
    runs = Settings.from_environment({**MINIMAL, f"ORCHARD_{name}": "none"}).runs
    others = {"schedule", "reconcile_schedule", "clean_schedule"} - {name.lower()}
    assert getattr(runs, name.lower()) is None
    assert all(getattr(runs, other) for other in others)


@pytest.mark.parametrize(("text", "keeps"), [("keep", True), ("drop", False), ("", True)])
def test_missing_images_are_kept_or_dropped(text: str, keeps: bool) -> None:
    assert Settings.from_environment({**MINIMAL, "ORCHARD_MISSING": text}).images.keeps_missing is keeps


@pytest.mark.parametrize(
    ("landing", "bucket", "prefix"), [("s3://b", "b", ""), ("s3://b/", "b", ""), ("s3://b/a/c//", "b", "a/c/")]
)
def test_a_prefix_ends_in_one_slash_or_is_empty(landing: str, bucket: str, prefix: str) -> None:
    zone = Settings.from_environment({**MINIMAL, "ORCHARD_LANDING": landing}).landing_zone
    assert (zone.bucket, zone.prefix) == (bucket, prefix)


def test_an_error_names_one_variable_of_several_wrong_ones() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({**MINIMAL, "ORCHARD_RETRIES": "-3", "ORCHARD_POLL_SECONDS": "0"})
    assert str(caught.value).count("ORCHARD_") == 1


def test_an_error_gives_the_value_and_what_is_wanted() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({**MINIMAL, "ORCHARD_REFIT_GAIN": "2"})
    assert str(caught.value) == "ORCHARD_REFIT_GAIN='2': must be a number from 0 to 1"


def test_an_empty_setting_that_a_target_needs_is_explained() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(ON_EMR_SERVERLESS | {"ORCHARD_EMR_APPLICATION": ""})
    assert str(caught.value) == (
        "ORCHARD_EMR_APPLICATION is not set: ORCHARD_TARGET=emr_serverless needs it: "
        "id of the EMR Serverless application (target emr_serverless)"
    )


def test_the_value_of_a_misspelt_variable_is_not_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({**MINIMAL, "ORCHARD_COMPONETS": "a-secret"})
    assert "ORCHARD_COMPONENTS" in str(caught.value)
    assert "a-secret" not in str(caught.value)


SECRET = "s3cret, type: x"


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        *((MINIMAL, "NOTIFIER_ARGUMENTS", text) for text in (f"[{json.dumps(SECRET)}]", f'{{"password": {SECRET}', SECRET)),
        *((ON_EMR, "JOB_TAGS", text) for text in (json.dumps({"n": 1, "t": SECRET}), json.dumps({"t": [SECRET]}), SECRET)),
        *(
            (ON_EMR, "EMR_CLUSTER", json.dumps({name: SECRET}))
            for name in ("Steps", "Tags", "VisibleToAllUsers", "Instances", "x")
        ),
        (ON_EMR, "EMR_CLUSTER", json.dumps({"LogUri": [SECRET]})),
        (ON_EMR, "EMR_CLUSTER", SECRET),
        *((IN_WORKSPACE, "DATABRICKS_CLUSTER", json.dumps({name: SECRET})) for name in ("autoscale", "custom_tags", "x")),
        (IN_WORKSPACE, "DATABRICKS_CLUSTER", json.dumps({"spark_version": [SECRET]})),
        (IN_WORKSPACE, "DATABRICKS_CLUSTER", SECRET),
        (MINIMAL, "SPARK_REMOTE", f"https://x/;token={SECRET}"),
    ],
)
def test_no_error_tells_a_value_that_may_be_secret(variables: dict[str, str], name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"ORCHARD_{name}=\*\*\*: ") as caught:
        check(variables | {f"ORCHARD_{name}": value})
    told = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in told
    assert "type: x" not in told


def test_the_settings_as_a_text_hold_no_secret() -> None:
    given = {"ORCHARD_NOTIFIER_ARGUMENTS": json.dumps({"password": SECRET}), "ORCHARD_SPARK_REMOTE": f"sc://x/;token={SECRET}"}
    assert "s3cret" not in repr(Settings.from_environment(MINIMAL | given))


@pytest.mark.parametrize("variables", [MINIMAL, ON_EMR_SERVERLESS, ON_EMR, IN_WORKSPACE])
def test_a_target_with_its_settings_passes(variables: dict[str, str]) -> None:
    check(variables)


def test_settings_of_another_target_may_be_empty() -> None:
    settings = Settings.from_environment(MINIMAL)
    assert (settings.emr.cluster, settings.emr_serverless.application, settings.jobs.uri) == (None, None, None)


@pytest.mark.parametrize(
    ("variables", "changes", "words"),
    [
        (
            ON_EMR_SERVERLESS,
            {"EMR_APPLICATION": ""},
            "ORCHARD_EMR_APPLICATION is not set: ORCHARD_TARGET=emr_serverless needs it",
        ),
        (ON_EMR_SERVERLESS, {"EMR_ROLE": ""}, "ORCHARD_EMR_ROLE is not set"),
        (ON_EMR_SERVERLESS, {"JOBS_URI": "/Volumes/a/b/c"}, "ORCHARD_JOBS_URI=.*: target emr_serverless needs an s3:// URI"),
        (ON_EMR_SERVERLESS, {"ENGINE": "cuda"}, "ORCHARD_ENGINE='cuda': EMR Serverless has no GPU"),
        (ON_EMR_SERVERLESS, {"EXECUTOR_CORES": "3"}, "ORCHARD_EXECUTOR_CORES=3: a worker of EMR Serverless has 1, 2"),
        (ON_EMR_SERVERLESS, {"EXECUTOR_MEMORY": "28g"}, "ORCHARD_EXECUTOR_MEMORY='28g': .* above the 30 GB"),
        (ON_EMR, {"EMR_CLUSTER": ""}, "ORCHARD_EMR_CLUSTER is not set: ORCHARD_TARGET=emr needs it"),
        (ON_EMR, {"EMR_CLUSTER": '{"Steps": []}'}, "ORCHARD_EMR_CLUSTER=.*Steps: the launcher gives it"),
        (ON_EMR, {"JOBS_ENVIRONMENT": ""}, "ORCHARD_JOBS_ENVIRONMENT is not set: EMR's own image lacks"),
        (ON_EMR, {"ENGINE": "cuda"}, "ORCHARD_EMR_CLUSTER=.*ORCHARD_ENGINE=cuda needs nodes"),
        (IN_WORKSPACE, {"JOBS_URI": ""}, "ORCHARD_JOBS_URI is not set: ORCHARD_TARGET=databricks needs it"),
        (IN_WORKSPACE, {"WAREHOUSE": "s3://lake/w"}, "ORCHARD_DATABRICKS_CREDENTIAL is not set"),
        (IN_WORKSPACE, {"ENGINE": "cuda"}, "ORCHARD_ENGINE='cuda': serverless compute has no GPU"),
        (IN_WORKSPACE, {"DATABRICKS_CLUSTER": '{"spot": true}'}, "ORCHARD_DATABRICKS_CLUSTER=.*spot: not a cluster field"),
    ],
)
def test_a_rule_of_a_target_names_its_variable(variables: dict[str, str], changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        check(variables | {f"ORCHARD_{name}": value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("variables", "changes"),
    [
        (ON_EMR, {"EMR_CLUSTER": "j-1A2B", "JOBS_ENVIRONMENT": ""}),
        (ON_EMR, {"EMR_CLUSTER": '{"CustomAmiId": "ami-1"}', "JOBS_ENVIRONMENT": ""}),
        (IN_WORKSPACE, {"DATABRICKS_CLUSTER": "0101-abc", "ENGINE": "cuda", "WAREHOUSE": "s3://lake/w"}),
        (MINIMAL, {"ENGINE": "cuda"}),
    ],
)
def test_a_rule_holds_only_where_it_belongs(variables: dict[str, str], changes: dict[str, Any]) -> None:
    check(variables | {f"ORCHARD_{name}": value for name, value in changes.items()})
