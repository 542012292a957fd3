"""Where uploads land in the S3 stand-in, and the queue that hears of them. It knows nothing of moto."""

BUCKET, PREFIX = "landing", "images"
ACCOUNT, REGION, QUEUE = "123456789012", "us-east-1", "uploads"


def queue_url(address: str) -> str:
    """Return the URL of the uploads' queue of the S3 stand-in at an address."""
    return f"{address}/{ACCOUNT}/{QUEUE}"
