// The answer to one image: what its job has computed so far, and its record at the end.
import { html, useEffect, useState } from "./html.js";
import { ENDED, lines } from "./api.js";
import { EvidenceView } from "./evidence.js";
import { follow } from "./events.js";
import { Busy, Chip, Fault, Lost } from "./parts.js";
import { href } from "./router.js";
import { words } from "./text.js";

/** The pictures that were sent from this tab, by job: they are shown before the service has described them.
 * @type {Map<string, {url: string, name: string}>} */
export const pictureOf = new Map();

export function Answer({ job }) {
  const [state, set] = useState({ view: null, layers: {}, image: null, record: null, error: null, isLost: false });
  useEffect(() => {
    const control = new AbortController();
    const add = (part) => control.signal.aborted || set((old) => ({ ...old, ...(typeof part === "function" ? part(old) : part) }));
    const onEvent = (name, data) => {
      if (name === "layer") {
        add((old) => ({ layers: { ...old.layers, ...data.layers }, image: data.image }));
        return false;
      }
      add((old) => ({ view: { ...old.view, ...data } }));
      return ENDED.includes(data.status);
    };
    follow(`v1/jobs/${encodeURIComponent(job)}/events`, onEvent, control.signal, (isLost) => add({ isLost }))
      .then(() => lines(`v1/jobs/${encodeURIComponent(job)}/results`, { limit: 1 }, { signal: control.signal }))
      .then(({ rows }) => add({ record: rows[0] ?? null }))
      .catch((error) => add({ error }));
    return () => control.abort();
  }, [job]);
  const { view, layers, image, record, error, isLost } = state;
  const sent = pictureOf.get(job);
  const partial = { key: "", width: null, height: null, ...image, ...layers };
  return html`<section class="panel" aria-label=${`Answer ${job}`}>
    <header><h2>${view?.profile ?? "…"}</h2>
      <small>${sent && `${sent.name} · `}<a href=${href(["job", job])}>job ${job}</a></small></header>
    <p class="visually-hidden" role="status">${record && `${record.status}. ${record.description?.text ?? ""}`}</p>
    <${Fault} error=${error} />
    <${Lost} isLost=${isLost} />
    ${view?.error && html`<p class="fault">${view.error}</p>`}
    ${!record && !error && !ENDED.includes(view?.status) && html`<${Progress} view=${view} layers=${layers} />`}
    ${!record && view?.status === "cancelled" && html`<p class="warning">The job was cancelled.</p>`}
    ${record ? html`<${EvidenceView} record=${record} job=${job} />`
      : (sent || image) && html`<${EvidenceView} record=${partial} job=${job} url=${sent?.url} />`}
  </section>`;
}

/** What a job of one image does now. */
function Progress({ view, layers }) {
  const waiting = view?.waiting;
  const done = Object.keys(layers).filter((name) => layers[name] !== null);
  return html`<${Busy}>${waiting ? `Waits for ${waiting.stage}: ${waiting.reason}` : view ? words(view.status) : "Asking"}<//>
    ${done.length > 0 && html`<ul class="stages" aria-label="Computed layers">${done.map((name) => html`<li key=${name}><${Chip} kind="good">${name}<//></li>`)}</ul>`}`;
}
