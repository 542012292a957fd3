"""Thumbnails: an image of the landing zone, decoded as the jobs decode it, and encoded anew, so that nothing else is sent."""

import io
import threading
from typing import Any

from orchard_jobs.contract.locations import S3Location, is_below, split_image_uri
from orchard_jobs.errors import JobError
from orchard_jobs.images.decode import Decoded
from orchard_jobs.images.guarded import decode
from PIL import Image

from orchard.settings import Settings

# The decoder makes this square of the whole picture; a thumbnail of it has the picture's own shape again.
_SQUARE = 224
_QUALITY = 85
_CONNECT_SECONDS, _READ_SECONDS = 3, 5


class Pictures:
    """The images of a landing zone, reached through the settings' Airflow connection. Safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: Any = None

    def thumbnail(self, batch_id: str, image: dict[str, Any], side: int) -> bytes | None:
        """Return an image as a JPEG without metadata, whose longer side has so many pixels.

        Args:
            batch_id: its batch.
            image: its row of the view.
            side: at most 224.

        Returns:
            None where it lies outside of its batch's landing zone, has gone or changed, is too large, or cannot be decoded.

        Raises:
            JobError: the store cannot be reached.
        """
        content = self._read(batch_id, image)
        if content is None:
            return None
        decoded = decode(content, self._settings.images.pixel_limit, _SQUARE)
        return _encoded(decoded, side) if isinstance(decoded, Decoded) else None

    def _read(self, batch_id: str, image: dict[str, Any]) -> bytes | None:
        """Return the bytes of an object as it was listed; None where it is not there, or no image of the batch."""
        from botocore.exceptions import BotoCoreError, ClientError

        uri, limit = image["image_uri"], self._settings.images.object_limit
        if not is_below(uri, self._settings.landing_zone.location.join(batch_id).uri) or image["size_bytes"] > limit:
            return None
        _, key = split_image_uri(uri)
        wanted = {"Bucket": S3Location.parse(uri).bucket, "Key": key, "IfMatch": f'"{image["etag"]}"'}
        try:
            content: bytes = self._connected().get_object(**wanted)["Body"].read()
            return content
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412):
                return None
            raise JobError(f"cannot read {uri!r}: {error}: let the connection of ORCHARD_AWS_CONN_ID read it") from error
        except BotoCoreError as error:
            raise JobError(f"cannot read {uri!r}: {error}: check the connection of ORCHARD_AWS_CONN_ID") from error

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                from airflow.providers.amazon.aws.hooks.s3 import S3Hook
                from botocore.config import Config

                patience = Config(connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"total_max_attempts": 2})
                self._client = S3Hook(self._settings.aws_conn_id, config=patience).get_conn()
            return self._client


def _encoded(decoded: Decoded, side: int) -> bytes:
    longer = max(decoded.width, decoded.height)
    size = (max(1, round(decoded.width * side / longer)), max(1, round(decoded.height * side / longer)))
    packed = io.BytesIO()
    Image.fromarray(decoded.squares[0]).resize(size, Image.Resampling.BICUBIC).save(packed, "JPEG", quality=_QUALITY)
    return packed.getvalue()
