// Where a page is scrolled to: a new one begins at its top, and one that is gone back to is where it was left.
import { route } from "./router.js";

const NAME = "strata.scroll"; // in the storage of this tab: by the entry of the history, the pixels from the top
const PATIENCE = 5000; // milliseconds until a page that is loaded again is as long as it was
const ENTRIES = 200; // that are remembered
const ACTS = ["wheel", "pointerdown", "touchstart", "keydown"]; // by which a person scrolls

/** What of an address is a page of its own; the rest narrows it, or opens something over it. All answers of Describe,
 * which is the first page too, stand below one form. */
export function pageOf({ parts, query } = route()) {
  const [name = "describe"] = parts;
  return { path: name === "describe" ? name : parts.join("/"), cursor: query.cursor ?? "" };
}

/** Scroll to a place as soon as the page is long enough, unless the person scrolls or types meanwhile.
 * topOf(): the pixels from the top of the page, or null while the place is not there. */
export function scrollWhenLong(topOf) {
  const main = document.getElementById("main");
  const stop = () => {
    watch.disconnect();
    clearTimeout(timer);
    ACTS.forEach((name) => window.removeEventListener(name, stop, true));
  };
  const look = (isLast = false) => {
    const top = topOf();
    if (top === null && !isLast) return;
    const fits = top !== null && document.documentElement.scrollHeight - window.innerHeight >= top - 1;
    if (top !== null) window.scrollTo(0, top);
    if (fits || isLast) stop();
  };
  const watch = new ResizeObserver(() => look());
  const timer = setTimeout(() => look(true), PATIENCE);
  ACTS.forEach((name) => window.addEventListener(name, stop, true));
  // what observes a size is also told of the first one: the page of a new address is drawn by then
  requestAnimationFrame(() => watch.observe(main));
}

/** The pixels from the top of the page to an element; null without one. */
export const topOfElement = (element) => (element ? element.getBoundingClientRect().top + window.scrollY : null);

/** Scroll to the beginning of what is shown now, if that lies above the window or below it. */
export function showTop(element) {
  const { top } = element.getBoundingClientRect();
  if (top < 0 || top > window.innerHeight) window.scrollTo(0, topOfElement(element));
}

/** From now on: keep the place of each entry of the history. */
export function keepScroll() {
  history.scrollRestoration = "manual"; // the browser would scroll before the page has its rows
  const places = new Map(JSON.parse(sessionStorage.getItem(NAME) ?? "[]"));
  const save = () => {
    places.delete(entry);
    places.set(entry, window.scrollY);
  };
  let entry = entryOf();
  let page = pageOf();
  const restore = () => {
    const top = places.get(entry);
    if (top !== undefined) scrollWhenLong(() => top);
    return top !== undefined;
  };
  restore();
  // the first of all listeners: the page before is still shown
  window.addEventListener("hashchange", () => {
    save();
    const [before, left] = [entry, page];
    [entry, page] = [entryOf(), pageOf()];
    if (entry === before || restore()) return;
    if (page.path !== left.path) scrollWhenLong(() => 0);
    else if (page.cursor !== left.cursor) scrollWhenLong(() => topOfElement(document.querySelector("[data-rows]")));
  });
  window.addEventListener("pagehide", () => {
    save();
    sessionStorage.setItem(NAME, JSON.stringify([...places].slice(-ENTRIES)));
  });
}

/** The name of the current entry of the history, which outlives a reload. */
function entryOf() {
  const entry = history.state?.entry ?? crypto.getRandomValues(new Uint32Array(2)).join("-");
  history.replaceState({ ...history.state, entry }, "");
  return entry;
}
