// Gallery: the rows of a job, a snapshot or everything, with filters, facets and the evidence of each row.
// The address holds all that is chosen: #/gallery?job=…&q=…&thing=…&row=…
import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { get, picture } from "../api.js";
import { EvidenceView } from "../evidence.js";
import { Busy, Fault, Picture, RowChip } from "../parts.js";
import { go, href } from "../router.js";
import { count, counted, percent, words } from "../text.js";
import { useEvery, useFields, useLoaded, useTitle } from "../use.js";
import { FacetPanel, LABELS, chosenOf } from "./facets.js";

const LIMIT = 60;
const FRESH = 5000; // milliseconds, after which the first page is asked for again
const SOON = 1000; // the same while the index is being made
const THUMBNAIL = 320; // pixels: twice as many as a card is wide, for fine screens
const ORDERS = { store: "as stored", best: "best score first", worst: "worst score first", longest: "longest text first", shortest: "shortest text first" };
const FIELDS = ["job", "snapshot", "q", "key", "status", "has_text", "score_min", "score_max", "words_min", "words_max"];

/** What the service is asked for: the address's query without what only the page uses. Several labels are lines. */
function askedOf(query) {
  const asked = Object.fromEntries(FIELDS.map((name) => [name, query[name]]));
  for (const name of LABELS) asked[name] = chosenOf(query, name);
  return asked;
}

export const rowPath = (id, file = "") => `v1/rows/${id}${file && `/${file}`}`;

export function Gallery({ query }) {
  useTitle("Gallery");
  const { row, cursor, order, ...filters } = query;
  const link = (changes) => href(["gallery"], { ...filters, order, ...changes });
  const key = JSON.stringify(askedOf(query));
  const page = useRows(query, key);
  const facets = useLoaded((signal) => get("v1/search/facets", askedOf(query), { signal }), [key, page.value?.total]);
  // a list that is asked for again must not lose the row that is looked at
  const rows = page.value?.rows ?? [];
  // one goes on at the card of the row that was looked at last
  const last = useRef(null);
  useEffect(() => {
    if (!row && last.current) document.querySelector(`.grid [data-row="${CSS.escape(last.current)}"]`)?.focus();
    last.current = row ?? null;
  }, [row]);
  return html`<h1>Gallery</h1>
    <${SearchForm} query=${query} link=${link} />
    <${Chosen} query=${query} link=${link} />
    <${Fault} error=${page.error} />
    <div class="gallery">
      <${FacetPanel} facets=${facets.value} error=${facets.error} loading=${facets.loading} query=${query} link=${link} />
      <section aria-label="Rows" data-rows tabindex="-1">
        <${Found} page=${page.value} />
        ${!page.value && !page.error && html`<${Busy}>Searching<//>`}
        <${Grid} rows=${rows} open=${(id) => go(link({ cursor, row: id }))} />
        <p class="row">${cursor && html`<a href=${link({})}>First page</a>`}
          ${page.value?.next && html`<a class="next" href=${link({ cursor: page.value.next })}>Next ${LIMIT}</a>`}</p>
      </section>
    </div>
    ${row && html`<${Detail} id=${row} rows=${rows} job=${query.job}
      show=${(id) => go(link({ cursor, row: id }), { replace: true })} close=${() => go(link({ cursor }))} />`}`;
}

/** The page of rows, asked for again now and then, as rows may come. */
function useRows({ cursor, order }, key) {
  const [state, set] = useState({ key: null, value: null, error: null });
  const asked = `${key} ${cursor ?? ""} ${order ?? ""}`;
  const waits = state.value?.waiting > 0 || state.error?.type === "search-not-ready";
  useEvery(waits ? SOON : FRESH, async () => {
    try {
      const value = await get("v1/search", { ...JSON.parse(key), cursor, order, limit: LIMIT });
      set({ key: asked, value, error: null });
    } catch (error) {
      set((before) => ({ key: asked, value: before.key === asked ? before.value : null, error }));
    }
  }, [asked, waits]);
  if (state.key !== asked) return { value: null, error: null };
  // that it is not ready yet is no fault: it is asked again soon
  return waits && !state.value ? { value: null, error: null } : state;
}

/** Where and what is searched for. */
function SearchForm({ query, link }) {
  const { value: recent } = useLoaded((signal) => get("v1/jobs", { limit: 20 }, { signal }), []);
  const search = (event) => {
    event.preventDefault();
    const given = Object.fromEntries([...new FormData(event.target)].map(([name, text]) => [name, text.trim()]));
    go(link(given));
  };
  const order = (event) => go(link({ order: event.target.value === "store" ? "" : event.target.value }));
  const form = useRef(null);
  useFields(form, { q: query.q, key: query.key, job: query.job, snapshot: query.snapshot });
  return html`<form class="fields search" role="search" ref=${form} onSubmit=${search}>
    <label class="field">Words <input type="search" name="q" placeholder="red car -dog" maxlength="500" /></label>
    <label class="field">Key contains <input name="key" autocomplete="off" /></label>
    <label class="field">Job <input name="job" list="recent-jobs" placeholder="all" autocomplete="off" /></label>
    <datalist id="recent-jobs">${(recent?.jobs ?? []).map((job) => html`<option key=${job.id} value=${job.id}>${job.profile} ${words(job.status)}</option>`)}</datalist>
    <label class="field">Snapshot <input name="snapshot" placeholder="none" autocomplete="off" /></label>
    <label class="field">Order <select value=${query.order ?? "store"} onChange=${order}>
      ${Object.entries(ORDERS).map(([name, title]) => html`<option key=${name} value=${name}>${title}</option>`)}</select></label>
    <button class="primary" type="submit">Search</button>
  </form>`;
}

/** What is chosen, each with a link that takes it away. */
function Chosen({ query, link }) {
  const range = (name, unit) => {
    const [least, most] = [query[`${name}_min`], query[`${name}_max`]];
    return least || most ? [[`${name} ${least ?? "0"} to ${most ?? unit}`, { [`${name}_min`]: "", [`${name}_max`]: "" }]] : [];
  };
  const chosen = [
    ...["q", "key", "job", "snapshot", "status"].filter((name) => query[name]).map((name) => [`${name}: ${query[name]}`, { [name]: "" }]),
    ...(query.has_text ? [[query.has_text === "true" ? "with text" : "without text", { has_text: "" }]] : []),
    ...range("score", "1"),
    ...range("words", "any"),
    ...LABELS.flatMap((name) => chosenOf(query, name).map((one) =>
      [`${name}: ${words(one)}`, { [name]: chosenOf(query, name).filter((other) => other !== one).join("\n") }])),
  ];
  if (!chosen.length) return null;
  return html`<ul class="chosen" aria-label="Chosen">${chosen.map(([text, without]) => html`<li key=${text}>
    <a href=${link(without)} aria-label=${`without ${text}`}>${text} <span aria-hidden="true">×</span></a></li>`)}
    ${chosen.length > 1 && html`<li><a href=${href(["gallery"])}>clear all</a></li>`}</ul>`;
}

/** How many rows there are, and what is not there. */
function Found({ page }) {
  if (!page) return null;
  return html`<p class="found" role="status">${counted(page.total, "row")}</p>
    ${page.hints.map((one) => html`<p class="hint" role="status" key=${one}>${one}</p>`)}
    ${page.waiting > 0 && html`<p class="warning">${counted(page.waiting, "part")} of ${count(page.waiting + page.indexed)} are not indexed yet; their rows will come.${page.note && ` It does not go on: ${page.note}.`}</p>`}
    ${page.broken.length > 0 && html`<details class="warning"><summary>${counted(page.broken.length, "part")} cannot be read</summary>
      <ul>${page.broken.map((one) => html`<li key=${one}>${one}</li>`)}</ul></details>`}`;
}

/** The cards. One of them is in the order of Tab; the arrow keys, Home and End go to others. */
function Grid({ rows, open }) {
  const [at, setAt] = useState(0);
  const list = useRef(null);
  const current = Math.min(at, Math.max(0, rows.length - 1));
  const move = (event) => {
    const cards = [...list.current.querySelectorAll("button")];
    const tops = cards.map((card) => Math.round(card.getBoundingClientRect().top));
    const across = tops.filter((top) => top === tops[0]).length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, Home: -cards.length, End: cards.length }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    // of the focused card: what is drawn may be one key behind
    const next = Math.max(0, Math.min(cards.length - 1, cards.indexOf(document.activeElement) + step));
    setAt(next);
    cards[next].focus();
  };
  return html`<ul class="grid" ref=${list} onKeyDown=${move}>${rows.map((row, index) => html`<li key=${row.id}>
    <button type="button" data-row=${row.id} tabindex=${index === current ? 0 : -1} onClick=${() => open(row.id)} onFocus=${() => setAt(index)}>
      <${Picture} path=${rowPath(row.id, `preview.jpg?side=${THUMBNAIL}`)} />
      <span class="title">${row.title ?? row.key}</span>
      <small>${row.status !== "succeeded" && html`<${RowChip} row=${row} /> `}
        ${row.score !== null && `match ${percent(row.score)} · `}${counted(row.words, "word")}</small>
    </button></li>`)}</ul>`;
}

/** A row with its evidence, over the page. The arrow keys, j and k go to the rows before and after it. */
function Detail({ id, rows, job, show, close }) {
  const dialog = useRef(null);
  const index = rows.findIndex((row) => row.id === id);
  const to = (step) => (index >= 0 && rows[index + step] ? () => show(rows[index + step].id) : null);
  const { value, error } = useLoaded(async (signal) => {
    const [record, url] = await Promise.all([
      get(rowPath(id), {}, { signal }),
      picture(rowPath(id, "preview.jpg?side=1600")).catch(() => ""),
    ]);
    return { id, record, url };
  }, [id]);
  useEffect(() => {
    if (!dialog.current.open) dialog.current.showModal();
  }, []);
  // another row begins at its top
  useLayoutEffect(() => {
    dialog.current.scrollTop = 0;
  }, [id]);
  const keys = (event) => {
    const step = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 }[event.key];
    const act = step && to(step);
    if (!act || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    act();
  };
  const shown = value?.id === id ? value : null;
  return html`<dialog class="detail" ref=${dialog} aria-labelledby="detail-title" onClose=${close} onKeyDown=${keys}>
    <header><h2 id="detail-title">${shown?.record.key ?? "Row"}</h2>
      <p class="row">
        <button type="button" disabled=${!to(-1)} onClick=${to(-1)} aria-label="the row before">←</button>
        <button type="button" disabled=${!to(1)} onClick=${to(1)} aria-label="the row after">→</button>
        ${job && shown && html`<a href=${href(["records", job, shown.record.key])}>its own page</a>`}
        <button type="button" onClick=${() => dialog.current.close()}>Close</button></p></header>
    <${Fault} error=${error} />
    ${!shown && !error && html`<${Busy}>Loading the row<//>`}
    ${shown && html`<${EvidenceView} key=${id} record=${shown.record} job=${job} url=${shown.url} />`}
  </dialog>`;
}
