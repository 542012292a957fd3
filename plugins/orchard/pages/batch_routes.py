"""The answers of the page Batch: one batch's versions, its images by label, their thumbnails, and what was quarantined."""

from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Path, Query, Response, status
from orchard_jobs.contract.quarantine import EXPLANATIONS, Reason

from orchard.pages.shown_view import ShownView
from orchard.pages.source import Source, not_found
from orchard.reporting.view_images import count_labels, read_image, read_images, read_quarantined

_MOST_IMAGES = 200
_BatchId = Annotated[str, Query(max_length=100)]
_Offset = Annotated[int, Query(ge=0)]
_Limit = Annotated[int, Query(ge=1, le=_MOST_IMAGES)]
_Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
_Number = Annotated[int, Path(ge=0)]
_THUMBNAIL, _PREVIEW = 120, 224
_NOTHING_OF_RUN = (
    "This run has published no batch version. Its tasks tell why, and Browse > Orchard shows all batches with their states."
)
# A thumbnail's address names a batch version, so it shows the same for ever. A browser keeps it as long as a person looks on.
_KEPT = "private, max-age=3600"


def add_batch(app: FastAPI, source: Source) -> None:
    """Add the routes."""
    _add_lists(app, source)
    _add_images(app, source)


def _add_lists(app: FastAPI, source: Source) -> None:
    @app.get("/api/batch")
    async def batch(batch_id: _BatchId) -> Response:
        return await source.answer(lambda shown: _of_batch(source, shown, batch_id))

    @app.get("/api/batch_of_run")
    async def batch_of_run(run_id: Annotated[str, Query(max_length=250)]) -> Response:
        return await source.answer(lambda shown: _of_batch(source, shown, shown.batch_of_run(run_id)))

    @app.get("/api/images")
    async def images(
        batch_id: _BatchId,
        offset: _Offset = 0,
        limit: _Limit = _MOST_IMAGES,
        label: Annotated[str | None, Query(max_length=1024)] = None,
        unlabelled: bool = False,
    ) -> Response:
        def find(shown: ShownView) -> dict[str, Any]:
            is_any = label is None and not unlabelled
            part = _part_of(shown, batch_id)
            wanted = None if unlabelled else label
            return read_images(source.view.warehouse, part, offset, limit, wanted, is_any_label=is_any)

        return await source.answer(find)

    @app.get("/api/quarantined")
    async def quarantined(batch_id: _BatchId, offset: _Offset = 0, limit: _Limit = _MOST_IMAGES) -> Response:
        def find(shown: ShownView) -> dict[str, Any]:
            found = read_quarantined(source.view.warehouse, _part_of(shown, batch_id), offset, limit)
            return found | {"rows": [row | {"advice": _advice(row["reason"])} for row in found["rows"]]}

        return await source.answer(find)


def _add_images(app: FastAPI, source: Source) -> None:
    @app.get("/api/image/{digest}/{number}")
    async def image(digest: _Digest, number: _Number) -> Response:
        return await source.answer(lambda shown: _image(source, shown, digest, number))

    @app.get("/thumbnails/{digest}/{number}")
    async def thumbnail(digest: _Digest, number: _Number, large: bool = False) -> Response:
        def read() -> bytes | None:
            shown = source.view.newest()
            if shown is None:
                return None
            found = _image(source, shown, digest, number)
            return source.pictures.thumbnail(found["batch_id"], found["image"], _PREVIEW if large else _THUMBNAIL)

        content = await source.read(read)
        if content is None:
            raise not_found("picture")
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": _KEPT})


def _of_batch(source: Source, shown: ShownView, batch_id: str | None) -> dict[str, Any]:
    if batch_id is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, _NOTHING_OF_RUN)
    versions = shown.versions_of(batch_id)
    if not versions:
        raise not_found("batch")
    current = versions[-1]
    counted = {"labels": None, "quarantined": None}
    if current["images"] is not None:
        counted = count_labels(source.view.warehouse, current["images"])
    return {"batch": current, "versions": versions[::-1], **counted}


def _part_of(shown: ShownView, batch_id: str) -> str:
    versions = shown.versions_of(batch_id)
    if not versions or versions[-1]["images"] is None:
        raise not_found("list of images")
    return str(versions[-1]["images"])


def _image(source: Source, shown: ShownView, digest: str, number: int) -> dict[str, Any]:
    version = shown.version_named(digest)
    if version is None or version["images"] is None:
        raise not_found("batch version")
    found = read_image(source.view.warehouse, version["images"], number)
    if found is None:
        raise not_found("image")
    advice = _advice(found["reason"]) if found["reason"] else None
    return {"batch_id": version["batch_id"], "version": version, "image": found, "advice": advice}


def _advice(reason: str) -> str:
    """Return what to do about a reason, as docs/reference/quarantine.md says it; empty for one of another release."""
    known = [one for one in Reason if one.value == reason]
    return EXPLANATIONS[known[0]].advice if known else ""
