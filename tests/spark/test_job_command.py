"""The command line of a job: finished work is reused, and a fault is left for a person."""

import json
import re
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from orchard_jobs.cli import main
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.digests import work_digest
from orchard_jobs.contract.jobs import JobArguments, JobReport
from orchard_jobs.contract.layout import FaultPath, ProjectionPlanPath, report_path
from orchard_jobs.contract.manifest import ManifestHead
from orchard_jobs.stages.staging import finish
from orchard_jobs.stages.workers import Workers
from orchard_jobs.storage import Warehouse
from support.local_manifests import entry_of, freeze


def test_two_processes_finish_with_one_report(warehouse: Warehouse, first: tuple[ManifestHead, JobReport]) -> None:
    late = replace(first[1], job_id="slower")
    assert finish(warehouse, late) == first[1]


def test_the_command_line_reuses_a_finished_report(
    warehouse: Warehouse, first: tuple[ManifestHead, JobReport], capsys: pytest.CaptureFixture[str]
) -> None:
    before = warehouse.read(report_path(first[1].work))
    assert main(["featurize", "--warehouse", warehouse.uri, "--input-digest", first[0].digest]) == 0
    assert "its report is reused" in capsys.readouterr().out
    assert warehouse.read(report_path(first[1].work)) == before


def test_a_job_leaves_word_of_what_its_worker_failed_on(
    workers: Workers, warehouse: Warehouse, batch: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchard_jobs.session.session", lambda name: nullcontext(workers.spark))
    monkeypatch.setattr("orchard_jobs.session.end_with_owner", lambda: None)
    never_exported = backbone_named("efficientnet_lite0", "cuda")
    head = freeze(warehouse, never_exported, [entry_of(batch[0])])
    with pytest.raises(Exception, match="the exported backbone"):
        main(["featurize", "--warehouse", warehouse.uri, "--input-digest", head.digest])
    told = json.loads(warehouse.read(str(FaultPath(work_digest(head.digest, never_exported.id, "featurize")))))
    assert re.match(r"orchard_jobs\.errors\.ConfigurationError: the exported backbone .* is not there", told["error"])
    assert datetime.fromisoformat(told["at"]).tzinfo is not None


def test_a_job_is_given_its_arguments_back(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[JobArguments] = []

    def take(_: Warehouse, arguments: JobArguments) -> int:
        given.append(arguments)
        return 0

    monkeypatch.setattr("orchard_jobs.cli._run_stage", take)
    asked = JobArguments("featurize", warehouse.uri, "0" * 64, "spark", stall_minutes=90.5)
    assert main(asked.to_argv()) == 0
    assert main(JobArguments("reduce", warehouse.uri, "1" * 64).to_argv()) == 0
    assert given == [asked, JobArguments("reduce", warehouse.uri, "1" * 64)]


def test_the_command_line_says_what_is_missing(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["project", "--warehouse", warehouse.uri, "--input-digest", "nothing"]) == 1
    assert str(ProjectionPlanPath("nothing")) in capsys.readouterr().err
    assert main(["featurize", "--warehouse", "ftp://x", "--input-digest", "0"]) == 2
