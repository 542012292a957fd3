"""Lineage: OpenLineage events with facets that say which rows a run made of which images, with what. `dataset` means theirs."""

from typing import Any

import attr
from airflow.providers.openlineage.api import emit_dataset_lineage
from openlineage.client.event_v2 import Dataset, InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    RunFacet,
    base_subset_dataset,
    dataset_version_dataset,
    input_statistics_input_dataset,
    output_statistics_output_dataset,
    schema_dataset,
)
from orchard_jobs.contract.classifier_tables import PREDICTIONS
from orchard_jobs.contract.columns import FEATURES, PCA_FEATURES, QUARANTINE, Table
from orchard_jobs.contract.jobs import StagedPartition
from orchard_jobs.contract.locations import S3Location, below, local_path

from orchard.batch.run import LineageRecord
from orchard.settings import Settings


@attr.define
class BatchVersionRunFacet(RunFacet):
    """What made a batch version: the manifest, its counts, the backbone, the models and the jobs."""

    batchId: str
    number: int
    manifestDigest: str
    counts: dict[str, int]
    backbone: str
    modelId: str | None
    classifierId: str | None
    jobsVersion: str
    jobIds: list[str]
    runId: str


def emit_batch(settings: Settings, batch: LineageRecord) -> None:
    """Emit one event with the images as input and each table as output. Never fails a run: an unreachable backend is logged."""
    emit_dataset_lineage(
        inputs=[_images(settings, batch)],
        outputs=_outputs(settings, batch),
        additional_run_facets={"orchard_batchVersion": _run_facet(batch)},
    )


def _run_facet(batch: LineageRecord) -> BatchVersionRunFacet:
    head = batch.head
    reports = [report for report in (batch.featurized, batch.reduced) if report is not None]
    return BatchVersionRunFacet(
        batchId=head.batch_id,
        number=head.number,
        manifestDigest=head.digest,
        counts=dict(batch.featurized.counts),
        backbone=head.backbone.id,
        modelId=head.model.model_id if head.model and batch.reduced else None,
        classifierId=head.classifier.model_id if head.classifier and batch.reduced else None,
        jobsVersion=batch.featurized.jobs_version,
        jobIds=[report.job_id for report in reports],
        runId=batch.run_id,
    )


def _subset(dimensions: dict[str, Any]) -> base_subset_dataset.PartitionSubsetCondition:
    return base_subset_dataset.PartitionSubsetCondition(partitions=[base_subset_dataset.Partition(dimensions=dimensions)])


def _images(settings: Settings, batch: LineageRecord) -> InputDataset:
    subset = base_subset_dataset.InputSubsetInputDatasetFacet(inputCondition=_subset({"batch_id": batch.head.batch_id}))
    statistics = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(fileCount=batch.head.listed)
    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=batch.head.digest)
    return InputDataset(
        namespace=S3Location(settings.landing_zone.bucket).uri,
        name=settings.landing_zone.location.key or "/",
        facets={"version": version},
        inputFacets={"subset": subset, "inputStatistics": statistics},
    )


def _outputs(settings: Settings, batch: LineageRecord) -> list[OutputDataset | Dataset]:
    staged = [(table, batch.featurized.of_table(table.name)) for table in (FEATURES, QUARANTINE)]
    of_models = ((table, batch.reduced.of_table(table.name)) for table in (PCA_FEATURES, PREDICTIONS)) if batch.reduced else ()
    staged += [(table, partitions) for table, partitions in of_models if partitions]
    return [_table(settings, table, partition, batch.versions[table.name]) for table, (partition,) in staged]


def _named(warehouse: str, table: Table) -> tuple[str, str]:
    """Return the namespace and the name by which OpenLineage knows a table."""
    root = local_path(warehouse)
    if root is not None:
        return "file", below(root, table.name)
    place = S3Location.parse(warehouse)
    return S3Location(place.bucket).uri, place.join(table.name).key


def _table(settings: Settings, table: Table, staged: StagedPartition, version: int | None) -> OutputDataset:
    namespace, name = _named(settings.warehouse, table)
    dimensions = dict(zip(table.partition_by, staged.partition, strict=True))
    fields = [schema_dataset.SchemaDatasetFacetFields(name=column.name, type=column.type) for column in table.columns]
    return OutputDataset(
        namespace=namespace,
        name=name,
        facets={
            "schema": schema_dataset.SchemaDatasetFacet(fields=fields),
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version)),
        },
        outputFacets={
            "subset": base_subset_dataset.OutputSubsetOutputDatasetFacet(outputCondition=_subset(dimensions)),
            "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=staged.rows,
                size=sum(file.size_bytes for file in staged.files),
                fileCount=len(staged.files),
            ),
        },
    )
