"""`aws s3 cp s3://BUCKET/KEY -`: an object to stdout. All else is refused."""

import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from orchard_jobs.contract.locations import S3Location


def main(words: list[str]) -> int:
    """Copy the object; return the exit status."""
    place = S3Location.find(words[2]) if words[:2] == ["s3", "cp"] and words[3:] == ["-"] else None
    if place is None:
        print(f"aws {' '.join(words)}: not known here, only `aws s3 cp s3://BUCKET/KEY -`", file=sys.stderr)
        return 252
    try:
        boto3.client("s3").download_fileobj(place.bucket, place.key, sys.stdout.buffer)
    except (ClientError, BotoCoreError) as error:
        print(f"fatal error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
