"""`aws s3 cp s3://BUCKET/KEY -`: an object to stdout. All else is refused."""

import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def main(words: list[str]) -> int:
    """Copy the object; return the exit status."""
    if words[:2] != ["s3", "cp"] or words[3:] != ["-"] or not words[2].startswith("s3://"):
        print(f"aws {' '.join(words)}: not known here, only `aws s3 cp s3://BUCKET/KEY -`", file=sys.stderr)
        return 252
    bucket, _, key = words[2].removeprefix("s3://").partition("/")
    try:
        boto3.client("s3").download_fileobj(bucket, key, sys.stdout.buffer)
    except (ClientError, BotoCoreError) as error:
        print(f"fatal error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
