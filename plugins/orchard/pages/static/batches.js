// The page Batches: a calendar of days and a table, both of the view.

import { STATES, ask, byId, count, decimal, element, followTheme, link, show, stateOf, time } from "./page.js";

const PAGE = 100;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const text = (value) => value ?? "-";
// Of each column: what the head says, how a value is shown, and whether it is a number.
const COLUMNS = {
  batch_id: ["batch", text, false],
  state: ["state", text, false],
  version: ["version", count, true],
  listed: ["listed", count, true],
  featurized: ["featurized", count, true],
  reused: ["reused", count, true],
  quarantined: ["quarantined", count, true],
  missing: ["missing", count, true],
  audit_verdict: ["audit", text, false],
  model_id: ["model", text, false],
  seconds: ["seconds", decimal, true],
  images_per_second: ["images/s", decimal, true],
  published_at: ["published", time, false],
};
const query = { sort: "batch_id", descending: true, offset: 0 };
let newest = 0;

function filters() {
  const states = [...document.querySelectorAll("#states input:checked")].map((box) => box.value);
  return { state: states, text: byId("text").value, first: byId("first").value, last: byId("last").value };
}

async function showTable() {
  const mine = ++newest;
  const found = await ask("api/batches", { ...filters(), ...query, limit: PAGE });
  if (mine !== newest) return found.view; // an answer that came late
  if (found.view === null) return null;
  if (!byId("states").childElementCount) showStates(found.states);
  byId("table").tBodies[0].replaceChildren(...found.rows.map(row));
  byId("count").textContent = found.total === 0 ? "No batch fits these filters." : `${count(found.total)} batches`;
  const last = Math.min(query.offset + PAGE, found.total);
  byId("place").textContent = found.total === 0 ? "" : `${count(query.offset + 1)} to ${count(last)}`;
  byId("previous").disabled = query.offset === 0;
  byId("next").disabled = last >= found.total;
  showHead();
  return found.view;
}

function row(batch) {
  const cells = Object.entries(COLUMNS).map(([name, [, shown, isNumber]]) => {
    if (name === "batch_id") return element("td", {}, link(`batch?${new URLSearchParams({ batch_id: batch.batch_id })}`, batch.batch_id));
    if (name === "state") return element("td", {}, stateOf(batch.state), batch.why ? element("div", { className: "quiet" }, batch.why) : null);
    return element("td", { className: isNumber ? "number" : name === "audit_verdict" ? "long" : "" }, shown(batch[name]));
  });
  cells[1].className = "long";
  return element("tr", {}, ...cells);
}

function showHead() {
  const focused = document.activeElement?.dataset?.column;
  const cells = Object.entries(COLUMNS).map(([name, [title, , isNumber]]) => {
    const isSorted = query.sort === name;
    const mark = isSorted ? (query.descending ? " \u2193" : " \u2191") : "";
    const button = element("button", { type: "button", onclick: () => sortBy(name) }, title + mark);
    button.dataset.column = name;
    const order = query.descending ? "descending" : "ascending";
    return element("th", { scope: "col", className: isNumber ? "number" : "", "aria-sort": isSorted ? order : "none" }, button);
  });
  byId("table").tHead.replaceChildren(element("tr", {}, ...cells));
  if (focused) document.querySelector(`[data-column="${focused}"]`)?.focus();
}

function sortBy(name) {
  query.descending = query.sort === name ? !query.descending : COLUMNS[name][2];
  query.sort = name;
  again();
}

function showStates(found) {
  for (const [name, number] of Object.entries(found)) {
    const box = element("input", { type: "checkbox", value: name });
    byId("states").append(element("label", {}, box, " ", stateOf(name), ` ${count(number)}`));
    byId("legend").append(element("li", {}, stateOf(name)));
  }
}

async function showCalendar(year) {
  const found = await ask("api/calendar", { year });
  if (found.view === null || found.year === null) return;
  byId("year").replaceChildren(...found.years.map((one) => element("option", { selected: one === found.year }, String(one))));
  const numbers = Array.from({ length: 31 }, (_, day) => element("th", { scope: "col" }, String(day + 1)));
  byId("calendar").tHead.replaceChildren(element("tr", {}, element("td"), ...numbers));
  const days = new Map(found.days.map((day) => [day.day, day]));
  byId("calendar").tBodies[0].replaceChildren(...MONTHS.map((name, month) => monthRow(found.year, month, name, days)));
}

function monthRow(year, month, name, days) {
  const cells = Array.from({ length: 31 }, (_, day) => {
    const key = [String(year).padStart(4, "0"), String(month + 1).padStart(2, "0"), String(day + 1).padStart(2, "0")].join("-");
    return element("td", {}, days.has(key) ? dayButton(days.get(key)) : null);
  });
  return element("tr", {}, element("th", { scope: "row" }, name), ...cells);
}

function dayButton(day) {
  const batches = day.batches === 1 ? "1 batch" : `${count(day.batches)} batches`;
  const words = `${day.day}: ${batches}, ${count(day.listed)} images, ${count(day.quarantined)} quarantined, ${day.state}`;
  const mark = STATES[day.state] === "good" ? "" : "!";
  const choose = () => {
    byId("first").value = byId("last").value = day.day;
    again();
  };
  return element("button", { type: "button", className: STATES[day.state], title: words, "aria-label": words, onclick: choose }, mark);
}

function again(offset = 0) {
  query.offset = offset;
  show(showTable);
}

let waiting;
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => again(), 150);
});
byId("filters").addEventListener("reset", () => setTimeout(() => again()));
byId("year").addEventListener("change", () => show(async () => (await showCalendar(byId("year").value), showTable())));
byId("previous").addEventListener("click", () => again(query.offset - PAGE));
byId("next").addEventListener("click", () => again(query.offset + PAGE));

followTheme();
show(async () => {
  const [view] = await Promise.all([showTable(), showCalendar("")]);
  return view;
});
