// The page of one image: the picture as the backbone's input shows it, and what the view knows of it.

import { ask, byId, count, facts, fileName, followTheme, show, time, wordsWithCode, element } from "./page.js";
import { showVisible, thumbnail } from "./thumbnails.js";

const parameters = new URLSearchParams(location.search);
const digest = parameters.get("digest") ?? "";
const number = parameters.get("number") ?? "";

followTheme();
show(async () => {
  const found = await ask(`api/image/${encodeURIComponent(digest)}/${encodeURIComponent(number)}`);
  if (found.view === null) return null;
  const { image, version } = found;
  const name = fileName(image.image_uri);
  byId("title").textContent = name;
  document.title = `${name} - Orchard`;
  byId("back").href = `batch?${new URLSearchParams({ batch_id: found.batch_id })}`;
  byId("back").textContent = `Batch ${found.batch_id}`;
  if (image.reason === null) {
    byId("picture").replaceChildren(thumbnail(digest, number, `${name}, label ${image.label ?? "none"}`, true));
    showVisible(byId("picture"));
  }
  facts(byId("facts"), {
    URI: image.image_uri,
    label: image.label,
    "set aside because": image.reason,
    message: image.message,
    "what you do": found.advice && element("span", {}, ...wordsWithCode(found.advice)),
    pixels: image.width && `${count(image.width)} x ${count(image.height)}`,
    bytes: count(image.size_bytes),
    uploaded: time(image.uploaded_at),
    ETag: image.etag,
    "SHA-256 of its bytes": image.content_sha256,
    "images of this batch with these bytes": image.copies ? count(image.copies) : null,
    "vector computed by manifest": image.computed_in,
    "batch version": `${count(version.version)}, manifest ${version.manifest_digest}`,
    "run of Airflow": version.run_id,
  });
  return found.view;
});
