"""The landing bucket of the S3 stand-in, the queue of its upload events, and clients for both. It knows nothing of moto."""

import os
from collections.abc import Mapping
from typing import Any

BUCKET, PREFIX = "landing", "images"
ACCOUNT, REGION, QUEUE = "123456789012", "us-east-1", "uploads"
# The id of the key that calls are signed with; its secret is random.
KEY = "orchard"


def queue_url(address: str) -> str:
    """Return the URL of the uploads' queue of the S3 stand-in at an address."""
    return f"{address}/{ACCOUNT}/{QUEUE}"


def s3_environment(address: str, secret: str) -> dict[str, str]:
    """Return the variables that point a process to the stand-in instead of AWS."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def aws_client(service: Any, environment: Mapping[str, str], **config: Any) -> Any:
    """Return a client of the server that the AWS_* variables name; it retries, and takes more options of botocore's Config."""
    import boto3
    from botocore.config import Config

    options: Any = {"retries": {"total_max_attempts": 4, "mode": "standard"}, "s3": {"addressing_style": "path"}}
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
        config=Config(proxies={}, **options, **config),
    )


def unread_messages(environment: Mapping[str, str]) -> int:
    """Return how many messages of uploads the stand-in's queue still holds."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    queue = queue_url(environment["AWS_ENDPOINT_URL"])
    attributes = aws_client("sqs", environment).get_queue_attributes(QueueUrl=queue, AttributeNames=names)
    return sum(int(attributes["Attributes"][name]) for name in names)
