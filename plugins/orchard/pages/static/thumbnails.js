// Thumbnails that load when they come into sight, a few at a time: the server reads two at once.

import { element } from "./page.js";

const AT_ONCE = 4;
const RETRIES = 3;
const waiting = [];
let loading = 0;

export function thumbnail(digest, number, words, isLarge = false) {
  const image = element("img", { alt: words, className: isLarge ? "large" : "thumbnail" });
  image.dataset.source = `thumbnails/${digest}/${number}${isLarge ? "?large=true" : ""}`;
  return image;
}

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    observer.unobserve(entry.target);
    waiting.push({ image: entry.target, tries: 0 });
  }
  loadNext();
}, { rootMargin: "200px" });

// Lets the thumbnails below an element load; those of a former page are forgotten.
export function showVisible(parent) {
  waiting.length = 0;
  for (const image of parent.querySelectorAll("img[data-source]")) observer.observe(image);
}

function loadNext() {
  while (loading < AT_ONCE && waiting.length) load(waiting.shift());
}

function load(one) {
  loading += 1;
  const ended = () => {
    loading -= 1;
    loadNext();
  };
  one.image.onload = ended;
  one.image.onerror = () => {
    one.tries += 1;
    // A busy server answers a moment later; a picture that is gone never does.
    if (one.tries < RETRIES) setTimeout(() => (waiting.push(one), loadNext()), 1000 * one.tries);
    else one.image.classList.add("gone");
    ended();
  };
  one.image.src = `${one.image.dataset.source}${one.tries ? `${one.image.dataset.source.includes("?") ? "&" : "?"}try=${one.tries}` : ""}`;
}
