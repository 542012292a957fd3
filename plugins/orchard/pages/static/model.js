// The page Models: each model, the variance that its components explain, and which was promoted when.

import { ask, byId, count, element, followTheme, show, tableHead, time } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 800;
const HEIGHT = 200;
const percent = (value) => (value === null ? "-" : `${(100 * value).toFixed(1)} %`);
let models = [];

function showModels() {
  byId("models-count").textContent = models.length ? "" : "There is no model yet. pca_model fits one once a batch is published.";
  tableHead(byId("models"), ["model", "components", "explains", "fitted on", "merged from", "fitted", "choice"]);
  byId("models").tBodies[0].replaceChildren(
    ...models.map((one) => {
      const batches = one.batches === 1 ? `1 batch: ${one.first_batch}` : `${count(one.batches)} batches, ${one.first_batch} to ${one.last_batch}`;
      const whole = one.explained_variance_ratio.reduce((sum, share) => sum + share, 0);
      const chosen = [[one.is_current, "current"], [one.is_held, "held"], [one.is_pinned, "pinned"]];
      const choice = chosen.filter(([is]) => is).map(([, word]) => word).join(", ");
      const values = [one.model_id, count(one.k), percent(whole), `${count(one.n)} images`, batches, time(one.created_at), choice];
      return element("tr", {}, ...values.map((value) => element("td", {}, value)));
    }),
  );
  byId("model").replaceChildren(...models.map((one) => element("option", { value: one.model_id }, one.model_id)));
  byId("scree-title").parentElement.hidden = !models.length;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A bar a component, and the line of their sum: the bars are as high as the first one allows.
function showScree() {
  const one = models.find((model) => model.model_id === byId("model").value);
  if (!one) return;
  const ratios = one.explained_variance_ratio;
  const picture = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
  const step = WIDTH / ratios.length;
  let sum = 0;
  const line = [];
  ratios.forEach((ratio, index) => {
    const height = (HEIGHT * ratio) / ratios[0];
    sum += ratio;
    line.push(`${(index + 0.5) * step},${HEIGHT * (1 - sum)}`);
    picture.append(drawn("rect", { x: index * step, y: HEIGHT - height, width: Math.max(1, step * 0.8), height }));
  });
  picture.append(drawn("polyline", { points: line.join(" ") }));
  byId("scree").replaceChildren(picture);
  const some = [1, 2, 5, 10, 20, 50, 100].filter((number) => number <= ratios.length);
  const words = some.map((number) => `${number}: ${percent(ratios.slice(0, number).reduce((whole, ratio) => whole + ratio, 0))}`);
  byId("scree-words").textContent = `Variance that the first components explain together (the line). ${words.join(", ")}.`;
}

function showPromotions(promotions) {
  tableHead(byId("promotions"), ["promoted", "model", "instead of", "why", "gain", "distance", "held"]);
  byId("promotions").tBodies[0].replaceChildren(
    ...promotions.map((one) => {
      const distance = one.distance === null ? "-" : one.distance.toFixed(3);
      const values = [time(one.promoted_at), one.model_id, one.predecessor ?? "-", one.reason, percent(one.gain), distance, one.is_held ? "yes" : ""];
      return element("tr", {}, ...values.map((value, index) => element("td", { className: index === 3 ? "long" : "" }, value)));
    }),
  );
}

followTheme();
byId("model").addEventListener("change", showScree);
show(async () => {
  const found = await ask("api/models");
  if (found.view === null) return null;
  models = found.models;
  showModels();
  showScree();
  showPromotions(found.promotions);
  return found.view;
});
