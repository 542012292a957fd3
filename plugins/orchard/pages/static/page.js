// What all pages share: Airflow's theme, elements whose text is never read as markup, answers of the application, numbers.

export const STATES = {
  damaged: "bad",
  refused: "bad",
  "half-way": "warn",
  planned: "busy",
  staged: "busy",
  published: "good",
};

export const byId = (id) => document.getElementById(id);

// Makes an element. Of the properties, those that begin with "aria-" or are unknown to elements become attributes.
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function followTheme() {
  const outer = frameRoot();
  const apply = () => {
    const isDark = outer ? outer.classList.contains("dark") : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.classList.toggle("dark", isDark);
  };
  apply();
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
}

function frameRoot() {
  try {
    return window.parent === window ? null : window.parent.document.documentElement;
  } catch {
    return null; // shown in a frame of another origin
  }
}

export class Fault extends Error {}

// Returns what the application answers to a GET; throws Fault with words for the reader.
export async function ask(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== "" && one !== null) query.append(key, one);
  }
  let answer;
  try {
    answer = await fetch(`${path}?${query}`);
  } catch {
    throw new Fault("Airflow did not answer. Check that its api-server runs, then load this page again.");
  }
  if (answer.ok) return answer.json();
  if (answer.status === 401) throw new Fault("You are logged out of Airflow. Log in, then load this page again.");
  if (answer.status === 403) throw new Fault("You have no permission to see plugins. Ask the administrator of this Airflow for it.");
  const told = await answer.json().catch(() => ({}));
  throw new Fault(typeof told.detail === "string" ? told.detail : `The request was refused with status ${answer.status}.`);
}

export function say(text, isFault = false) {
  const place = byId("message");
  place.textContent = text;
  place.classList.toggle("fault", isFault);
}

// Runs what fills the page; shows the content, or why there is none.
export async function show(fill) {
  say("Loading ...");
  try {
    const view = await fill();
    byId("content").hidden = view === null;
    say(view === null ? "No view has been written yet. Start a run of image_batches, or run `orchard pages`." : "");
    if (view) byId("age").textContent = `As of ${ago(view.age_seconds)}. Backbone ${view.backbone}.`;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    say(error.message, true);
  }
}

export const stateOf = (name) => element("span", { className: `state ${STATES[name]}` }, name);
export const link = (address, ...children) => element("a", { href: address }, ...children);
export const fileName = (uri) => uri.slice(uri.lastIndexOf("/") + 1);

// Fills a list of facts; a fact without a value is left out.
export function facts(list, values) {
  const known = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "-");
  list.replaceChildren(...known.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

export function tableHead(table, titles) {
  table.tHead.replaceChildren(element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title))));
}

// Returns a text as elements: what stands between backticks is code.
export const wordsWithCode = (text) => text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));

export function ago(seconds) {
  for (const [size, name] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    const count = Math.floor(seconds / size);
    if (count > 0) return `${count} ${name}${count > 1 ? "s" : ""} ago`;
  }
  return "less than a minute ago";
}

const whole = new Intl.NumberFormat("en");
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
export const count = (value) => (value === null ? "-" : whole.format(value));
export const decimal = (value) => (value === null ? "-" : tenth.format(value));
export const time = (value) => (value === null ? "-" : value.replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, " UTC"));
