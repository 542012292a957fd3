// The page Batch: its images by label, what was quarantined, its stages and its versions.

import { ask, byId, count, decimal, element, facts, fileName, followTheme, link, show, stateOf, tableHead, time, wordsWithCode } from "./page.js";
import { thumbnail, showVisible } from "./thumbnails.js";

const PAGE = 200;
const parameters = new URLSearchParams(location.search);
const offsets = { images: 0, quarantined: 0 };
const ALL = "all";
const NONE = "none";
let batchId = parameters.get("batch_id") ?? "";
let digest = "";

function showFacts(batch) {
  byId("title").textContent = `Batch ${batch.batch_id}`;
  document.title = `${batch.batch_id} - Orchard`;
  facts(byId("facts"), {
    state: element("span", {}, stateOf(batch.state), batch.why ? ` ${batch.why}` : ""),
    version: count(batch.version),
    published: time(batch.published_at),
    audit: batch.audit_verdict,
    listed: count(batch.listed),
    featurized: count(batch.featurized),
    reused: count(batch.reused),
    quarantined: count(batch.quarantined),
    missing: count(batch.missing),
    model: batch.model_id,
    "run of Airflow": batch.run_id,
    jobs: batch.job_ids?.join(", "),
    "ran on": batch.target && `${batch.target}, engine ${batch.engine}, orchard-jobs ${batch.jobs_version}`,
    manifest: batch.manifest_digest,
  });
}

function showStages(batch) {
  const rate = batch.featurize_seconds ? batch.network_runs / batch.featurize_seconds : null;
  const stages = [
    ["featurize", batch.featurize_seconds, rate === null ? "" : `${count(batch.network_runs)} images through the backbone, ${decimal(rate)} images/s`],
    ["reduce", batch.reduce_seconds, batch.reduce_seconds === null ? "there was no model yet" : `model ${batch.model_id}`],
  ];
  const longest = Math.max(1, ...stages.map(([, seconds]) => seconds ?? 0));
  byId("stages").tBodies[0].replaceChildren(
    ...stages.map(([name, seconds, words]) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, name),
        element("td", { className: "number" }, seconds === null ? "-" : `${decimal(seconds)} s`),
        element("td", {}, element("meter", { max: longest, value: seconds ?? 0, "aria-label": `${name}: ${decimal(seconds)} seconds` })),
        element("td", { className: "long" }, words),
      ),
    ),
  );
}

function showVersions(versions) {
  const columns = ["version", "published", "listed", "featurized", "reused", "quarantined", "missing", "audit", "run of Airflow"];
  tableHead(byId("versions"), columns);
  byId("versions").tBodies[0].replaceChildren(
    ...versions.filter((one) => one.version !== null).map((one) => {
      const numbers = [one.listed, one.featurized, one.reused, one.quarantined, one.missing].map(count);
      const values = [count(one.version), time(one.published_at), ...numbers, one.audit_verdict, one.run_id];
      return element("tr", {}, ...values.map((value) => element("td", {}, value ?? "-")));
    }),
  );
}

function showLabels(labels) {
  const whole = labels.reduce((sum, one) => sum + one.images, 0);
  const option = (value, words) => element("option", { value }, words);
  byId("label").replaceChildren(
    option(ALL, `all (${count(whole)})`),
    ...labels.map((one, index) => option(one.label === null ? NONE : `=${one.label}`, `${one.label ?? "no label"} (${count(one.images)})`)),
  );
}

async function showImages() {
  const value = byId("label").value;
  const chosen = value === NONE ? { unlabelled: true } : value === ALL ? {} : { label: value.slice(1) };
  const found = await ask("api/images", { batch_id: batchId, offset: offsets.images, limit: PAGE, ...chosen });
  byId("images").replaceChildren(...found.rows.map(figure));
  showVisible(byId("images"));
  place("images", found, "good images");
  return found.view;
}

function figure(row) {
  const name = fileName(row.image_uri);
  const address = `image?${new URLSearchParams({ digest, number: row.number })}`;
  const words = `${name}, label ${row.label ?? "none"}`;
  const copies = row.copies > 1 ? element("span", { className: "quiet" }, ` ${count(row.copies)} copies`) : null;
  return element("li", {}, link(address, thumbnail(digest, row.number, words)), element("span", { title: row.image_uri }, name), copies);
}

async function showQuarantined() {
  const found = await ask("api/quarantined", { batch_id: batchId, offset: offsets.quarantined, limit: PAGE });
  if (found.rows.length) tableHead(byId("quarantined"), ["file", "label", "reason", "message", "what you do"]);
  byId("quarantined").tBodies[0].replaceChildren(
    ...found.rows.map((row) =>
      element(
        "tr",
        {},
        element("td", { className: "long" }, link(`image?${new URLSearchParams({ digest, number: row.number })}`, row.image_uri)),
        element("td", {}, row.label ?? "-"),
        element("td", {}, row.reason),
        element("td", { className: "long" }, row.message),
        element("td", { className: "long" }, ...wordsWithCode(row.advice)),
      ),
    ),
  );
  place("quarantined", found, "quarantined files");
  return found.view;
}

function place(name, found, what) {
  const first = offsets[name];
  const last = Math.min(first + PAGE, found.total);
  byId(`${name}-count`).textContent = found.total === 0 ? `No ${what}.` : `${count(first + 1)} to ${count(last)} of ${count(found.total)} ${what}`;
  byId(`${name}-previous`).disabled = first === 0;
  byId(`${name}-next`).disabled = last >= found.total;
}

function turnable(name, fill) {
  for (const [button, pages] of [["previous", -1], ["next", 1]]) {
    byId(`${name}-${button}`).addEventListener("click", () => {
      offsets[name] += pages * PAGE;
      show(fill);
    });
  }
}

followTheme();
turnable("images", showImages);
turnable("quarantined", showQuarantined);
byId("label").addEventListener("change", () => {
  offsets.images = 0;
  show(showImages);
});
show(async () => {
  const runId = parameters.get("run_id");
  const found = await (runId === null ? ask("api/batch", { batch_id: batchId }) : ask("api/batch_of_run", { run_id: runId }));
  if (found.view === null) return null;
  batchId = found.batch.batch_id;
  digest = found.batch.manifest_digest;
  showFacts(found.batch);
  showStages(found.batch);
  showVersions(found.versions);
  if (found.labels === null) {
    for (const name of ["images", "quarantined"]) byId(`${name}-title`).parentElement.hidden = true;
    return found.view;
  }
  showLabels(found.labels);
  await Promise.all([showImages(), showQuarantined()]);
  return found.view;
});
