"""The landing bucket of the S3 stand-in, the queue of its upload events, and clients for both. It knows nothing of moto."""

import os
from typing import Any

BUCKET, PREFIX = "landing", "images"
ACCOUNT, REGION, QUEUE = "123456789012", "us-east-1", "uploads"
# The stand-in takes any.
LOG_IN = "orchard"


def queue_url(address: str) -> str:
    """Return the URL of the uploads' queue of the S3 stand-in at an address."""
    return f"{address}/{ACCOUNT}/{QUEUE}"


def s3_environment(address: str) -> dict[str, str]:
    """Return the variables that point a process to the stand-in instead of AWS."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": LOG_IN,
        "AWS_SECRET_ACCESS_KEY": LOG_IN,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def aws_client(service: Any, address: str, key: str = LOG_IN, secret: str = LOG_IN, **config: Any) -> Any:
    """Return a client of the stand-in, or of another server; it retries, and takes more options of botocore's Config."""
    import boto3
    from botocore.config import Config

    options: Any = {"retries": {"total_max_attempts": 4, "mode": "standard"}, "s3": {"addressing_style": "path"}}
    return boto3.client(
        service,
        endpoint_url=address,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=REGION,
        config=Config(proxies={}, **options, **config),
    )


def unread_messages(address: str) -> int:
    """Return how many messages of uploads the stand-in's queue still holds."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    told = aws_client("sqs", address).get_queue_attributes(QueueUrl=queue_url(address), AttributeNames=names)
    return sum(int(told["Attributes"][name]) for name in names)
