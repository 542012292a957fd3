"""Uploads: put what differs from the landing bucket into it, many at once. It knows nothing of Airflow."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from orchard_sandbox.batches import LocalBatch
from orchard_sandbox.landing import BUCKET, PREFIX, REGION, queue_url

_AT_ONCE = 8


@dataclass(frozen=True)
class Uploaded:
    """What an upload of one batch did."""

    name: str
    files: int
    uploaded: int
    unchanged: int
    hidden: int


def s3_client(address: str, key: str = "orchard", secret: str = "orchard") -> Any:
    """Return a client of the S3 stand-in, which takes any log-in, or of another S3 server."""
    config = Config(
        max_pool_connections=_AT_ONCE,
        request_checksum_calculation="when_required",
        s3={"addressing_style": "path"},
        proxies={},
        retries={"max_attempts": 3},
    )
    return _client("s3", address, config, key, secret)


def _client(service: Any, address: str, config: Config, key: str = "orchard", secret: str = "orchard") -> Any:
    return boto3.client(
        service,
        endpoint_url=address,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=REGION,
        config=config,
    )


def unread_messages(address: str) -> int:
    """Return how many messages of uploads the stand-in's queue still holds."""
    sqs = _client("sqs", address, Config(proxies={}, retries={"max_attempts": 3}))
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = sqs.get_queue_attributes(QueueUrl=queue_url(address), AttributeNames=names)["Attributes"]
    return sum(int(counts[name]) for name in names)


def upload_batch(s3: Any, batch: LocalBatch) -> Uploaded:
    """Upload the files of a batch that the bucket lacks or holds with other bytes; what is only in the bucket stays."""
    prefix = f"{PREFIX}/{batch.name}/"
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
        uploaded = sum(pool.map(put, batch.files.items()))
    finally:
        pool.shutdown(cancel_futures=True)  # after a Ctrl-C no further file is begun
    return Uploaded(batch.name, len(batch.files), uploaded, len(batch.files) - uploaded, batch.hidden)


def _listed(s3: Any, prefix: str) -> Iterator[tuple[str, tuple[int, str]]]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for item in page.get("Contents", ()):
            yield item["Key"], (item["Size"], item["ETag"].strip('"'))
