// Small pieces that several pages show.
import { html, useEffect, useState } from "./html.js";
import { picture } from "./api.js";
import { count } from "./text.js";

/** An error as people can read it; nothing without one. */
export const Fault = ({ error, retry }) =>
  error
    ? html`<p class="fault" role="alert">${error.message}${
        retry && html` <button type="button" onClick=${retry}>Try again</button>`
      }</p>`
    : null;

/** That the service does not answer: what is shown stays as it was. */
export const Lost = ({ isLost }) =>
  isLost ? html`<p class="warning" role="status">The service does not answer. What is shown may be old; it is asked again.</p>` : null;

/** A word on a coloured ground; kind: "good", "bad", "warn" or "plain". */
export const Chip = ({ kind = "plain", title, children }) =>
  html`<span class=${`chip ${kind}`} title=${title}>${children}</span>`;

const ROW_KINDS = { succeeded: "good", failed: "bad", filtered: "warn" };

/** The chip of a row's status. */
export const RowChip = ({ row }) => html`<${Chip} kind=${ROW_KINDS[row.status]}>${row.status}<//>`;

const FOLDED = 600; // characters of a text, above which it is folded

/** A text, of which a long one shows its beginning and a button for all of it. */
export function Foldable({ text }) {
  const [isOpen, open] = useState(false);
  const isLong = text.length > FOLDED * 1.2;
  // not within a character of two units, such as an emoji
  const start = text.slice(0, FOLDED).replace(/[\uD800-\uDBFF]$/, "");
  return html`<p class="whole">${isLong && !isOpen ? `${start} …` : text}
    ${isLong && html` <button type="button" aria-expanded=${isOpen} onClick=${() => open(!isOpen)}>${isOpen ? "Show less" : `Show all ${count(text.length)} characters`}</button>`}</p>`;
}

/** Something behind a summary. isOpen: at first; afterwards only the person opens and closes it. */
export function Details({ summary, isOpen = false, children, ...more }) {
  const [first] = useState(isOpen);
  return html`<details open=${first} ...${more}><summary>${summary}</summary>${children}</details>`;
}

/** That something is awaited. */
export const Busy = ({ children }) => html`<p class="busy" role="status"><span class="spin" aria-hidden="true"></span>${children}</p>`;

/** A picture of the service by its path, loaded when it comes near the visible part of the page. */
export function Picture({ path, alt = "", ...more }) {
  const [place, setPlace] = useState(null);
  const [state, set] = useState({ path: null, url: null, failed: false });
  useEffect(() => {
    if (!place) return undefined;
    let current = true;
    const load = () =>
      picture(path).then(
        (url) => current && set({ path, url, failed: false }),
        () => current && set({ path, url: null, failed: true }),
      );
    const watch = new IntersectionObserver((seen) => {
      if (!seen.some((one) => one.isIntersecting)) return;
      watch.disconnect();
      load();
    }, { rootMargin: "300px" });
    watch.observe(place);
    return () => {
      current = false;
      watch.disconnect();
    };
  }, [path, place]);
  const shown = state.path === path ? state : { url: null, failed: false };
  return html`<span class="picture" ref=${setPlace} ...${more}>${
    shown.url ? html`<img src=${shown.url} alt=${alt} />` : html`<span class="no-picture">${shown.failed ? "no picture" : ""}</span>`
  }</span>`;
}
