"""rehearse: the stages' Spark operations once, on made-up rows, so that a JVM can archive the classes that they load.

A start of Spark is most of a small job, and loading classes is most of the start. `-XX:ArchiveClassesAtExit` around this and
`-XX:SharedArchiveFile` around a job is how Java shares them (JEP 350).
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from orchard_jobs.contract.manifest import ENTRY_DDL

_ROWS = 64


def rehearse(spark: SparkSession) -> int:
    """Read JSON, spread, map, write, read, count, join, unite and sort; return the number of rows that came out."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({"image_uri": f"file:///{number}", "etag": "e", "action": "keep"}) for number in range(_ROWS)]
        (Path(folder) / "entries.jsonl").write_text("\n".join(lines))
        entries = spark.read.schema(ENTRY_DDL).json([f"file://{folder}/entries.jsonl"])
        spread = entries.filter(F.col("action") == "keep").repartition(4, "image_uri").sortWithinPartitions("image_uri")
        spread.mapInArrow(_with_vector, "image_uri STRING, features ARRAY<FLOAT>").write.parquet(f"file://{folder}/mapped")
        mapped = spark.read.parquet(f"file://{folder}/mapped")
        counted = mapped.groupBy("image_uri").count().collect()
        joined = mapped.join(entries.select("image_uri", "etag"), ["image_uri"]).withColumn(
            "at", F.to_timestamp(F.lit("2026-01-01"))
        )
        united = joined.unionByName(joined.dropDuplicates(["image_uri"]))
        united.repartition(1).sortWithinPartitions("image_uri").write.parquet(f"file://{folder}/sorted")
        return len(counted)


def _with_vector(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        vectors = pa.array([[0.0]] * batch.num_rows, pa.list_(pa.float32()))
        yield pa.RecordBatch.from_arrays([batch.column("image_uri"), vectors], names=["image_uri", "features"])
