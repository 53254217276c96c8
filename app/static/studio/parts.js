// Small pieces that several pages show.
import { html, useEffect, useState } from "./html.js";
import { picture } from "./api.js";

/** An error as people can read it; nothing without one. */
export const Fault = ({ error, retry }) =>
  error
    ? html`<p class="fault" role="alert">${error.message}${
        retry && html` <button type="button" onClick=${retry}>Try again</button>`
      }</p>`
    : null;

/** A word on a coloured ground; kind: "good", "bad", "warn" or "plain". */
export const Chip = ({ kind = "plain", title, children }) =>
  html`<span class=${`chip ${kind}`} title=${title}>${children}</span>`;

const ROW_KINDS = { succeeded: "good", failed: "bad", filtered: "warn" };

/** The chip of a row's status. */
export const RowChip = ({ row }) => html`<${Chip} kind=${ROW_KINDS[row.status]}>${row.status}<//>`;

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
