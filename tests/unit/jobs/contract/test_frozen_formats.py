"""Formats that warehouses and clusters already hold: each is pinned to the letter, and none may change within a version."""

import json
from dataclasses import asdict, replace

import pytest
from orchard_jobs import __version__
from orchard_jobs.contract.backbones import backbone_named
from orchard_jobs.contract.digests import canonical_json, digest_of, work_digest
from orchard_jobs.contract.evaluations import Cell, Evaluation
from orchard_jobs.contract.jobs import (
    BatchVersion,
    Captured,
    ClassifierFit,
    JobArguments,
    JobReport,
    Projection,
    ProjectionPlan,
    StagedFile,
    StagedPartition,
)
from orchard_jobs.contract.manifest import Entry, ManifestHead, ModelReference, write_known, write_parts

FIRST_DECODER = "pillow, strict, first frame, EXIF orientation applied, to RGB"
BACKBONE = replace(backbone_named("efficientnet_lite0"), decoder=FIRST_DECODER)
KEY = "images/2026-01-05/Apple Red 1/é#% 1.jpg"
FIRST = Entry(f"s3://landing/{KEY}", "0" * 32, 123, "2026-01-05T00:00:00+00:00", "Apple Red 1", "compute", "0" * 32)
SECOND = Entry(
    "s3://landing/images/2026-01-05/x.jpg", "etag-2", 9, "2026-01-05T00:00:00.000001+00:00", None, "reuse", "", "a" * 64, True
)
PARTS = tuple(part for part, _ in write_parts([FIRST, SECOND]))
KNOWN = write_known(["b" * 64, "a" * 64])[0]
MODEL = ModelReference("pca-0123456789abcdef", "models/pca-0123456789abcdef/model.parquet", 100)
HEAD = ManifestHead(
    batch_id="2026-01-05",
    backbone=BACKBONE,
    number=3,
    model=MODEL,
    pixel_limit=50_000_000,
    listed=1,
    missing=1,
    actions={"compute": 1, "reuse": 1},
    features_files=("features/a.parquet",),
    quarantine_files=(),
    parts=PARTS,
    vector_files=("features/b.parquet",),
    known=KNOWN,
)
HEAD_DIGEST = "23584817c124d635be339251d096e364ba0522689917ecc3462bf47e5a257759"
PLAN = ProjectionPlan(BACKBONE.id, (Projection(MODEL, (BatchVersion("2026-01-05", HEAD_DIGEST, 3, ("features/a.parquet",)),)),))
PLAN_DIGEST = "0c082a90f13a22c547fe59242c7b14a881e31c903dd691c89f2d61f040841ce3"
REPORT = JobReport(
    work="d" * 64,
    stage="featurize",
    input_digest=HEAD_DIGEST,
    backbone=BACKBONE.id,
    jobs_version="0.1.0",
    job_id="app-1",
    partitions=(StagedPartition("features", (BACKBONE.id, "2026-01-05"), (StagedFile("features/x.parquet", 10, 2, "e" * 64),)),),
    counts={"network_runs": 2},
    reasons={"truncated": 1},
    captured=(Captured(MODEL.model_id, "2026-01-05", HEAD_DIGEST, 2, 10.0, 9.5),),
    seconds={"network": 1.5},
    network={"images": 2, "network_runs": 2, "busy_seconds": 0.5, "waiting_seconds": 0.25},
)
REPORT_TEXT = (
    '{"backbone":"efficientnet_lite0-060157e6fedc","captured":[{"batch_id":"2026-01-05","kept":9.5,"manifest_digest":'
    '"23584817c124d635be339251d096e364ba0522689917ecc3462bf47e5a257759","model_id":"pca-0123456789abcdef","n":2,"total":10.0}],'
    '"counts":{"network_runs":2},"input_digest":"23584817c124d635be339251d096e364ba0522689917ecc3462bf47e5a257759",'
    '"job_id":"app-1","jobs_version":"0.1.0","network":{"busy_seconds":0.5,"images":2,"network_runs":2,"waiting_seconds":0.25},'
    '"partitions":[{"files":[{"path":"features/x.parquet","rows":2,"sha256":'
    '"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee","size_bytes":10}],"partition":'
    '["efficientnet_lite0-060157e6fedc","2026-01-05"],"table":"features"}],"reasons":{"truncated":1},"seconds":{"network":1.5},'
    '"stage":"featurize","work":"dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}'
)


def test_the_version_that_stands_in_every_work_digest() -> None:
    assert __version__ == "0.1.0"


@pytest.mark.parametrize(
    ("name", "engine", "found"),
    [
        ("efficientnet_lite0", "onnx", "8568c561e10f60ea0fb6964c144a32f5e832111cd60e51e2a04c0dd8d3c64457"),
        ("efficientnet_lite0", "cuda", "4a54a215178850be844387ecdb5e9d5866ea6c4c7930bd8e1e5aaf1734c1c3a3"),
        ("efficientnet_lite0", "tensorflow", "22b8a4c8f5a0926ce4b1fbad2a800ace6ba244dc92f6a277cf5ad8ba2f66c34a"),
        ("efficientnet_lite2", "onnx", "7b073caf03615c35e679c294783d970b42e6d1f9ea1049846cf5edf71714e33c"),
        ("efficientnet_lite2", "cuda", "b85b5c4d4cddd118fc8ab798dbb3d5d72f5807c674b9dbb04ec5505355a58df3"),
        ("efficientnet_lite2", "tensorflow", "4a8b0d90fd1c20cd693f3a28ab8476cd7214303b62f6b9aeb32f05a84a916243"),
        ("resnet50", "onnx", "67507a30c3536231f7d77147553c385b28c658236efe69cf3fce79aad1ab3ec2"),
        ("resnet50", "cuda", "7a443e72c61ec498d853acf96ce6239aca562d409971383c21ca03b009faa43c"),
        ("resnet50", "tensorflow", "ea07caf9ef1819a2cce4230b26d616b3801997622cf1fdf766f989d7b6b4f3b3"),
        ("color_histogram", "numpy", "e7b33e3a093c204da16f149521db952138699099ebdf5b9dce32eb9d3c7b0fe7"),
    ],
)
def test_the_digest_of_every_backbone(name: str, engine: str, found: str) -> None:
    assert backbone_named(name, engine).digest == found


@pytest.mark.parametrize(
    ("engine", "found"),
    [
        ("onnx", "060157e6fedc4d49b39de0652b48a1b85314d303e9a6f416ad1b0fefd20d75b1"),
        ("cuda", "b826b77f3ec882a40848c36aa51ef964d7afb57d51b772c451f6c5e848a90e15"),
        ("tensorflow", "f3c96b09f4639ad225ff18ca891c3e4bc17a7de8ff041d99602823da7bb33405"),
    ],
)
def test_only_the_decoder_changed_the_digest(engine: str, found: str) -> None:
    assert replace(backbone_named("efficientnet_lite0", engine), decoder=FIRST_DECODER).digest == found


def test_the_id_of_a_backbone_with_weights_of_its_own() -> None:
    assert backbone_named("resnet50", "onnx", "/w.h5", "c" * 64).id == "resnet50-66dac3e2af83"


def test_the_lines_of_a_manifest() -> None:
    assert canonical_json(asdict(FIRST)) == (
        '{"action":"compute","content_sha256":null,"etag":"00000000000000000000000000000000","group":'
        '"00000000000000000000000000000000","image_uri":"s3://landing/images/2026-01-05/Apple Red 1/é#% 1.jpg",'
        '"is_missing":false,"label":"Apple Red 1","size_bytes":123,"uploaded_at":"2026-01-05T00:00:00+00:00"}'
    )
    assert PARTS[0].sha256 == "1c06dd7b96fac89e65e3b1c9a4ff5d5ccfc39762687a0b6881cd101ecf1b9615"


def test_the_file_of_known_contents() -> None:
    assert (KNOWN.name, KNOWN.sha256) == (
        "known.txt.gz",
        "913f9338fb6c17253f3a14816fc08d52522454bfc19a8c99538a197cfb23fb41",
    )


def test_the_digest_of_a_manifest() -> None:
    assert HEAD.digest == HEAD_DIGEST
    assert digest_of(json.loads(HEAD.to_json())) == HEAD_DIGEST


def test_a_size_limit_is_in_a_manifest_unless_it_is_the_default() -> None:
    other = replace(HEAD, object_limit=10)
    assert other.digest != HEAD_DIGEST
    assert ManifestHead.from_json(other.to_json()) == other
    assert ManifestHead.from_json(HEAD.to_json()) == HEAD
    assert "object_limit" not in HEAD.to_json()


def test_a_manifest_tells_that_it_was_planned_without_heic() -> None:
    other = replace(HEAD, reads_heic=False)
    assert other.digest != HEAD_DIGEST
    assert ManifestHead.from_json(other.to_json()) == other
    assert "reads_heic" not in HEAD.to_json()


def test_labels_that_mean_no_label_are_in_a_manifest_unless_there_are_none() -> None:
    other = replace(HEAD, unlabelled=("unknown", "unsorted"))
    assert other.digest != HEAD_DIGEST
    assert ManifestHead.from_json(other.to_json()) == other
    assert "unlabelled" not in HEAD.to_json()


def test_a_classifier_is_in_a_manifest_once_there_is_one() -> None:
    classifier = ModelReference("lda-0123456789abcdef", "classifiers/lda-0123456789abcdef/model.parquet", 3)
    other = replace(HEAD, classifier=classifier)
    assert other.digest != HEAD_DIGEST
    assert ManifestHead.from_json(other.to_json()) == other
    assert other.models == (MODEL, classifier)
    assert "classifier" not in HEAD.to_json()


def test_evaluations_are_in_a_report_once_there_are_some() -> None:
    cell = Cell("apple", "apple", False, 2, 2, 1, 1.5)
    other = replace(REPORT, evaluations=(Evaluation("lda-0123456789abcdef", "2026-01-05", HEAD_DIGEST, (cell,)),))
    assert JobReport.from_json(other.to_json()) == other
    assert "evaluations" not in REPORT_TEXT


def test_the_digest_of_a_projection_plan() -> None:
    assert PLAN.digest == PLAN_DIGEST
    assert digest_of(json.loads(PLAN.to_json())) == PLAN_DIGEST


@pytest.mark.parametrize(
    ("stage", "input_digest", "work"),
    [
        ("featurize", HEAD_DIGEST, "61c8267f8cd844f0fbd0961000929c60d83dfa0356eebd9755133abaa3d70347"),
        ("reduce", HEAD_DIGEST, "1d78cfd5686f7d211d5aab4c68d69b987cb8c3cfe694161e7471a50322872294"),
        ("project", PLAN_DIGEST, "54e7a792f4910a241e128431de2e2fa5e4448506b6f4df291ea2dd2ece86c557"),
    ],
)
def test_the_work_digest_of_every_stage(stage: str, input_digest: str, work: str) -> None:
    assert work_digest(input_digest, BACKBONE.id, stage) == work


@pytest.mark.parametrize(("components", "found"), [(100, "e5b201849188f91a"), (0.95, "3ee7a42cbbaa2865")])
def test_the_digest_of_what_a_model_is_fitted_from(components: float, found: str) -> None:
    assert digest_of([BACKBONE.id, components, [["2026-01-05", HEAD_DIGEST]]])[:16] == found


def test_the_text_of_a_job_report() -> None:
    assert REPORT.to_json() == REPORT_TEXT
    assert JobReport.from_json(REPORT_TEXT) == REPORT


def test_the_command_line_of_a_job() -> None:
    asked = JobArguments("project", "s3://lake/orchard", PLAN_DIGEST, "spark", "login")
    where = ["--warehouse", "s3://lake/orchard", "--source", "spark", "--credential", "login"]
    assert asked.to_argv() == ["project", *where, "--input-digest", PLAN_DIGEST]
    patient = replace(asked, stall_minutes=90.5).to_argv()
    assert patient == ["project", *where, "--stall-minutes", "90.5", "--input-digest", PLAN_DIGEST]
    plain = JobArguments("featurize", "s3://lake/orchard", HEAD_DIGEST).to_argv()
    assert plain == ["featurize", "--warehouse", "s3://lake/orchard", "--source", "fetch", "--input-digest", HEAD_DIGEST]


def test_pcas_plans_say_nothing_of_a_kind_or_a_fit() -> None:
    assert "kind" not in json.loads(PLAN.to_json())
    assert "fit" not in json.loads(PLAN.to_json())
    versions = PLAN.projections[0].batches
    reference = ModelReference("lda-0123456789abcdef", "classifiers/lda-0123456789abcdef/model.parquet", 2)
    fit = ClassifierFit(
        reference, versions, (("Apple Red 1", "Apple"),), (("Kiwi", 3),), ("unsorted",), "batches", 99, None, 0.01
    )
    plan = replace(PLAN, kind="classifier", projections=(), fit=fit)
    assert ProjectionPlan.from_json(plan.to_json()) == plan
    files = tuple(path for version in versions for path in version.files)
    assert (plan.stage, plan.models, plan.tables_files) == ("classify", (reference,), files)
    assert plan.digest == "e02f1e4bbc10ca539d17616b7120a932d6518da303902904d106fb9e38fba2ad"
