"""Uploads: put what differs from the landing bucket into it, many at once. It knows nothing of Airflow."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchard_jobs.contract.locations import below, prefix_of

from orchard_sandbox.s3.landing import BUCKET, PREFIX, aws_client
from orchard_sandbox.stack.batches import LocalBatch

_AT_ONCE = 8


def s3_client(environment: Mapping[str, str]) -> Any:
    """Return a client of the S3 server that the AWS_* variables name."""
    return aws_client("s3", environment, max_pool_connections=_AT_ONCE, request_checksum_calculation="when_required")


def upload_batch(s3: Any, batch: LocalBatch) -> int:
    """Upload the files of a batch that the bucket lacks or holds with other bytes, and return how many these were.

    What is only in the bucket stays.
    """
    prefix = prefix_of(below(PREFIX, batch.name))
    there = dict(_listed(s3, prefix))

    def put(item: tuple[str, Path]) -> bool:
        key, content = prefix + item[0], item[1].read_bytes()
        # An ETag of the bytes' MD5 is equal content; one of a multipart upload never is, so such a file is put again.
        if there.get(key) == (len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()):
            return False
        s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        return True

    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return sum(pool.map(put, batch.files.items()))
    finally:
        pool.shutdown(cancel_futures=True)  # after a Ctrl-C no further file is begun


def _listed(s3: Any, prefix: str) -> Iterator[tuple[str, tuple[int, str]]]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for item in page.get("Contents", ()):
            yield item["Key"], (item["Size"], item["ETag"].strip('"'))
