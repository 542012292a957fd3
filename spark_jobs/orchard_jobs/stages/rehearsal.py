"""rehearse: the stages' Spark operations once, on made-up rows, so that a JVM can archive the classes that they load.

A start of Spark is most of a small job, and loading classes is most of the start. `-XX:ArchiveClassesAtExit` around this and
`-XX:SharedArchiveFile` around a job is how Java shares them (JEP 350).
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from orchard_jobs.contract.manifest import ENTRY_DDL

_ROWS = 64


def rehearse(spark: SparkSession) -> int:
    """Give numbers to workers, read JSON and Parquet, join, unite, spread and sort; return the number of rows that came out."""
    with tempfile.TemporaryDirectory() as folder:
        told = spark.range(0, 4, 1, 4).mapInArrow(_numbers, "number BIGINT, path STRING").collect()
        lines = [json.dumps({"image_uri": f"file:///{number}", "etag": "e", "action": "keep"}) for number in range(_ROWS)]
        (Path(folder) / "entries.jsonl").write_text("\n".join(lines))
        vectors = pa.array([[0.0]] * _ROWS, pa.list_(pa.float32()))
        table = pa.table({"image_uri": [f"file:///{number}" for number in range(_ROWS)], "features": vectors})
        pq.write_table(table, f"{folder}/published.parquet")
        entries = spark.read.schema(ENTRY_DDL).json([f"file://{folder}/entries.jsonl"]).filter(F.col("action") == "keep")
        published = spark.read.schema("image_uri STRING, features ARRAY<FLOAT>").parquet(f"file://{folder}/published.parquet")
        joined = published.join(entries.select("image_uri", "etag"), ["image_uri"]).select(
            "image_uri", "features", F.to_timestamp(F.lit("2026-01-01")).alias("at")
        )
        united = joined.unionByName(joined.dropDuplicates(["image_uri"])).mapInArrow(_same, joined.schema)
        rows = united.repartition(4, "image_uri").sortWithinPartitions("image_uri").mapInArrow(_same, joined.schema).collect()
        return len(told) + len(rows)


def _numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"number": batch.column(0), "path": [""] * batch.num_rows})


def _same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches
