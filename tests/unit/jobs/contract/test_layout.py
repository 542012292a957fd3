"""Paths under the warehouse: each is built and parsed by one form, and the forms are those of warehouses that are there."""

import pytest
from hypothesis import given
from hypothesis import strategies as some
from orchard_jobs.contract.columns import FEATURES, PROMOTIONS, RUNS, TABLES, Table
from orchard_jobs.contract.layout import (
    AttemptPath,
    BackbonePath,
    ChecksumsPath,
    FaultPath,
    ManifestPath,
    ModelPath,
    ModelPlanPath,
    ProgressPath,
    ProjectionPlanPath,
    RemovalNotePath,
    ReportPath,
    ScratchPath,
    StagedPath,
    ViewPath,
    WarehousePath,
    attempts_folder,
    data_file_of_checksum,
    parse,
    partition_folder,
    progress_folder,
    relative_to_table,
    table_path,
)
from orchard_jobs.contract.locations import checked_batch_id

D, W, P = "d" * 64, "e" * 64, "0123456789abcdef"
BACKBONE = "efficientnet_lite0-060157e6fedc"
# As they stand in warehouses: no byte of them may change.
ON_DISK: dict[str, WarehousePath] = {
    f"_work/manifests/{D}/head.json": ManifestPath(D),
    f"_work/manifests/{D}/part-00000.jsonl.gz": ManifestPath(D, "part-00000.jsonl.gz"),
    f"_work/manifests/{D}/known.txt.gz": ManifestPath(D, "known.txt.gz"),
    f"_work/plans/{D}.json": ProjectionPlanPath(D),
    f"_work/decisions/{D}.json": ModelPlanPath(D),
    f"_work/networks/{BACKBONE}.onnx": BackbonePath(BACKBONE),
    f"_work/networks/{BACKBONE}.sha256": BackbonePath(BACKBONE, "sha256"),
    f"_work/checksums/{D}.json": ChecksumsPath(D),
    f"_work/retired/{D}.json": RemovalNotePath(D),
    "_work/view/current.json": ViewPath(),
    f"_work/view/part-{D}.parquet": ViewPath(f"part-{D}.parquet"),
    f"_work/{W}/report.json": ReportPath(W),
    f"_work/{W}/progress/{P}/fedcba9876543210.json": ProgressPath(W, P, "fedcba9876543210.json"),
    f"_work/{W}/progress/planned/mark.json": ProgressPath(W, "planned", "mark.json"),
    f"_work/{W}/attempts/000012/claimed.json": AttemptPath(W, 12, "claimed"),
    f"_work/{W}/attempts/1000000/ended.json": AttemptPath(W, 1_000_000, "ended"),
    f"_work/{W}/scratch/{P}/shards/00000.jsonl.gz": ScratchPath(W, P, "shards/00000.jsonl.gz"),
    f"_work/{W}/scratch/{P}/moments/part-fedcba9876543210": ScratchPath(W, P, "moments/part-fedcba9876543210"),
    f"_work/{W}/scratch/fault.json": FaultPath(W),
    "models/pca-0123456789abcdef/model.parquet": ModelPath("pca-0123456789abcdef"),
    "classifiers/lda-0123456789abcdef/model.parquet": ModelPath("lda-0123456789abcdef", "classifiers"),
    f"features/backbone={BACKBONE}/batch_id=2026-01-05/{W}/{P}/part-fedcba9876543210.parquet": StagedPath(
        FEATURES, (BACKBONE, "2026-01-05"), W, P, "part-fedcba9876543210.parquet"
    ),
    f"runs/backbone={BACKBONE}/batch_id=2026-01-05/{P}/part-00000.parquet": StagedPath(
        RUNS, (BACKBONE, "2026-01-05"), None, P, "part-00000.parquet"
    ),
    f"promotions/{P}/part-00000.parquet": StagedPath(PROMOTIONS, (), None, P, "part-00000.parquet"),
}
FOREIGN = [
    "",
    "_work",
    "_work/manifests",
    "_work/manifests/notes/head.json",
    f"_work/manifests/{D}",
    f"_work/manifests/{D}/",
    f"_work/manifests/{D}/../{W}/report.json",
    f"_work/manifests//{D}/head.json",
    f"_work/plans/{D.upper()}.json",
    f"_work/plans/{D}.json.bak",
    f"_work/plans/{D}.json\n",
    f"_work/{W}/attempts/0000012/claimed.json",
    f"_work/{W}/scratch/notes.txt",
    f"_work/{W[1:]}/report.json",
    f"notes/_work/{W}/report.json",
    "features/_delta_log/00000000000000000000.json",
    "features/notes.parquet",
    f"features/batch_id=2026-01-05/backbone={BACKBONE}/{W}/{P}/part-0.parquet",
    f"features/backbone={BACKBONE}/{W}/{P}/part-0.parquet",
    f"strangers/{P}/part-00000.parquet",
]

digests = some.text("0123456789abcdef", min_size=64, max_size=64)
processes = some.text("0123456789abcdef", min_size=16, max_size=16)
names = some.from_regex(r"[0-9A-Za-z][0-9A-Za-z._-]{0,40}", fullmatch=True)
nested = some.lists(names, min_size=1, max_size=3).map("/".join)
batch_ids = some.from_regex(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}", fullmatch=True).map(checked_batch_id)
backbones = some.builds("{}-{}".format, some.sampled_from(["efficientnet_lite0", "resnet50"]), digests.map(lambda d: d[:12]))
models = processes.map("pca-{}".format)
VALUES = {"backbone": backbones, "batch_id": batch_ids, "model_id": models}


def staged(table: Table) -> some.SearchStrategy[StagedPath]:
    values = some.tuples(*(VALUES[name] for name in table.partition_by))
    return some.builds(StagedPath, some.just(table), values, some.none() | digests, processes, nested)


# Of each kind, all its forms.
KINDS: dict[type[WarehousePath], some.SearchStrategy[WarehousePath]] = {
    ManifestPath: some.builds(ManifestPath, digests, names),
    ProjectionPlanPath: some.builds(ProjectionPlanPath, digests),
    ModelPlanPath: some.builds(ModelPlanPath, digests),
    BackbonePath: some.builds(BackbonePath, backbones, some.sampled_from(["onnx", "sha256"])),
    ChecksumsPath: some.builds(ChecksumsPath, digests),
    RemovalNotePath: some.builds(RemovalNotePath, digests),
    ViewPath: some.builds(ViewPath, names),
    ReportPath: some.builds(ReportPath, digests),
    ProgressPath: some.builds(ProgressPath, digests, processes | some.just("planned"), names),
    AttemptPath: some.builds(AttemptPath, digests, some.integers(0, 10**7), some.sampled_from(["claimed", "started", "ended"])),
    ScratchPath: some.builds(ScratchPath, digests, processes, nested),
    FaultPath: some.builds(FaultPath, digests),
    ModelPath: some.builds(ModelPath, models, some.sampled_from(["models", "classifiers"])),
    StagedPath: some.one_of(*map(staged, TABLES)),
}


@pytest.mark.parametrize("kind", KINDS)
@given(some.data())
def test_what_is_built_is_parsed_back(kind: type[WarehousePath], drawn: some.DataObject) -> None:
    path = drawn.draw(KINDS[kind])
    assert parse(str(path)) == path


@pytest.mark.parametrize("text", ON_DISK)
def test_paths_in_warehouses_keep_their_text(text: str) -> None:
    assert str(ON_DISK[text]) == text
    assert parse(text) == ON_DISK[text]


@pytest.mark.parametrize("text", FOREIGN)
def test_what_orchard_did_not_write_is_unknown(text: str) -> None:
    assert parse(text) is None


@given(some.text(max_size=200))
def test_no_text_makes_the_parser_fail(text: str) -> None:
    found = parse(text)
    assert found is None or str(found) == text


def test_every_kind_of_path_stands_among_the_examples() -> None:
    kinds = {kind for kind in _subclasses(WarehousePath) if "form" in vars(kind) or kind is StagedPath}
    assert {type(path) for path in ON_DISK.values()} == kinds
    assert KINDS.keys() == kinds


def test_an_exports_name_says_of_which_backbone_it_is() -> None:
    assert BackbonePath(BACKBONE).name == f"{BACKBONE}.onnx"


def _subclasses(kind: type[WarehousePath]) -> set[type[WarehousePath]]:
    return {found for child in kind.__subclasses__() for found in (child, *_subclasses(child))}


def test_a_manifests_head_is_told_from_its_parts() -> None:
    assert ManifestPath(D, "head.json").is_head
    assert not ManifestPath(D, "part-00000.jsonl.gz").is_head


def test_files_lie_below_the_folders_that_are_listed_for_them() -> None:
    assert str(ProgressPath(W, P, "x.json")).startswith(f"{progress_folder(W)}/")
    assert str(AttemptPath(W, 1, "ended")).startswith(f"{attempts_folder(W)}/")
    assert progress_folder(W) == f"_work/{W}/progress"
    assert attempts_folder(W) == f"_work/{W}/attempts"


def test_a_partitions_folder_may_name_some_of_its_values() -> None:
    assert partition_folder(FEATURES, ()) == "features"
    assert partition_folder(FEATURES, ("b",)) == "features/backbone=b"
    assert partition_folder(FEATURES, ("b", "2026")) == "features/backbone=b/batch_id=2026"


def test_a_value_too_many_or_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        partition_folder(FEATURES, ("b", "2026", "more"))
    with pytest.raises(ValueError, match="is partitioned by"):
        StagedPath(FEATURES, ("b",), W, P, "x.parquet")


def test_a_checksum_belongs_to_the_file_beside_it() -> None:
    assert data_file_of_checksum("features/.part-0.parquet.crc") == "features/part-0.parquet"
    for path in ("features/part-0.parquet", "features/part.0.crc", "features/.crc"):
        assert data_file_of_checksum(path) == path


def test_a_table_path_goes_both_ways_and_no_other_does() -> None:
    assert table_path(RUNS, "_delta_log/0.json") == "runs/_delta_log/0.json"
    assert relative_to_table(RUNS, "runs/_delta_log/0.json") == "_delta_log/0.json"
    with pytest.raises(ValueError, match="is not below runs/"):
        relative_to_table(RUNS, "features/x.parquet")
