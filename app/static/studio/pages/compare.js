// Compare: the descriptions of the same images by two jobs or snapshots, side by side: #/compare?a=…&b=…
import { html, useEffect, useRef } from "../html.js";
import { get } from "../api.js";
import { changes } from "../changes.js";
import { Busy, Fault, Picture } from "../parts.js";
import { go, href } from "../router.js";
import { counted, percent, words } from "../text.js";
import { useFields, useLoaded, useTitle } from "../use.js";
import { rowPath } from "./gallery.js";

const SOON = 1500; // milliseconds, after which it is asked again while the search index does not have all rows
const PATIENCE = 8; // how often rows are asked for that no part is known to have: those of a job that has just ended
const LIMIT = 12; // images a page: each needs up to four requests
const ALIKE = 20; // rows of a job whose key has that of the image in it
const ORDERS = { store: "as stored", best: "best score first", worst: "worst score first" };
const JOB = /^[0-9a-f]{22}$/; // the ids of jobs; other names are those of snapshots

export function Compare({ query }) {
  useTitle("Compare");
  const { a, b, cursor, order } = query;
  const link = (changed) => href(["compare"], { a, b, order, ...changed });
  const { value, error, loading, reload } = useLoaded(async (signal) => (a && b ? pairsOf(a, b, order, cursor, signal) : null), [a, b, order, cursor]);
  const asked = useRef(0);
  useEffect(() => {
    asked.current = 0;
  }, [a, b, order, cursor]);
  const isEmpty = value !== null && value.waiting === 0 && !value.pairs.length;
  const waits = error?.type === "search-not-ready" || (value !== null && value.waiting > 0) || (isEmpty && asked.current < PATIENCE);
  useEffect(() => {
    const again = () => {
      asked.current += isEmpty ? 1 : 0;
      reload();
    };
    const timer = waits && setTimeout(again, SOON);
    return () => clearTimeout(timer);
  }, [waits, value, error]);
  return html`<h1>Compare</h1>
    <${Which} query=${query} link=${link} />
    ${error?.type !== "search-not-ready" && html`<${Fault} error=${error} retry=${reload} />`}
    ${!(a && b) && html`<p class="none">Name two jobs or snapshots that describe the same images.</p>`}
    ${loading && !value && a && b && html`<${Busy}>Looking for the images of both<//>`}
    ${value && html`<p class="found" role="status">${counted(value.total, "image")} of ${b}</p>
      ${value.waiting > 0 && html`<p class="warning">${counted(value.waiting, "part")} are not indexed yet; their rows will come.</p>`}
      ${isEmpty && !waits && html`<p class="none">${b} has no rows that succeeded.</p>`}
      <ul class="pairs" data-rows tabindex="-1">${value.pairs.map((pair) => html`<${Pair} key=${pair.id} pair=${pair} a=${a} />`)}</ul>
      <p class="row">${cursor && html`<a href=${link({})}>First page</a>`}
        ${value.next && html`<a class="next" href=${link({ cursor: value.next })}>Next ${LIMIT}</a>`}</p>`}`;
}

/** Which two, and in which order. */
function Which({ query, link }) {
  const form = useRef(null);
  useFields(form, { a: query.a, b: query.b });
  const compare = (event) => {
    event.preventDefault();
    go(link(Object.fromEntries([...new FormData(event.target)].map(([name, text]) => [name, text.trim()]))));
  };
  const order = (event) => go(link({ order: event.target.value === "store" ? "" : event.target.value }));
  return html`<form class="fields search" ref=${form} onSubmit=${compare}>
    <label class="field">Before <input name="a" required placeholder="a job or snapshot" autocomplete="off" /></label>
    <label class="field">After <input name="b" required placeholder="another one" autocomplete="off" /></label>
    <label class="field">Order <select value=${query.order ?? "store"} onChange=${order}>
      ${Object.entries(ORDERS).map(([name, title]) => html`<option key=${name} value=${name}>${title}</option>`)}</select></label>
    <button class="primary" type="submit">Compare</button>
  </form>`;
}

const scopeOf = (name) => (JOB.test(name) ? { job: name } : { snapshot: name });

/** A page of rows of b, each with the row of a that is of the same image. */
async function pairsOf(a, b, order, cursor, signal) {
  const page = await get("v1/search", { ...scopeOf(b), status: "succeeded", order, cursor, limit: LIMIT }, { signal });
  const pairs = await Promise.all(page.rows.map(async (row) => {
    const after = await get(rowPath(row.id), {}, { signal });
    return { id: row.id, key: row.key, after, afterScore: row.score, ...(await beforeOf(a, row, after, signal)) };
  }));
  const waiting = Math.max(page.waiting, ...pairs.map((pair) => pair.waiting));
  return { pairs, next: page.next, total: page.total, waiting };
}

/** The row of a that is of the same image as a row of b, with its score; nulls if there is none. */
async function beforeOf(a, row, after, signal) {
  const { rows, waiting } = await get("v1/search", { ...scopeOf(a), key: row.key, limit: ALIKE }, { signal });
  for (const one of rows.filter(({ key }) => key === row.key)) {
    const record = await get(rowPath(one.id), {}, { signal });
    if (isSame(record.image, after.image)) return { before: record, beforeScore: one.score, waiting };
  }
  return { before: null, beforeScore: null, waiting };
}

/** Whether two places are of one image: the same bytes, or the same place. */
function isSame(one, other) {
  if (one.sha256 && other.sha256) return one.sha256 === other.sha256;
  return one.uri === other.uri && one.offset === other.offset && one.size === other.size;
}

const textOf = (record) => record?.description?.text ?? record?.caption?.text ?? "";

function Pair({ pair, a }) {
  const [gone, added] = changes(textOf(pair.before), textOf(pair.after));
  return html`<li>
    <${Picture} path=${rowPath(pair.id, "preview.jpg?side=640")} />
    <div><h2>${pair.key}</h2>
      <div class="two">
        <div><h3>Before <small>${scoreOf(pair.before, pair.beforeScore)}</small></h3>
          ${pair.before ? html`<p><${Words} pieces=${gone} tag="del" /></p>` : html`<p class="none">This image is not in ${a}.</p>`}
          ${pair.before && pair.before.status !== "succeeded" && html`<p class="fault">${words(pair.before.status)}: ${pair.before.failure?.detail}</p>`}</div>
        <div><h3>After <small>${scoreOf(pair.after, pair.afterScore)}</small></h3>
          <p><${Words} pieces=${pair.before ? added : [{ text: textOf(pair.after), isChanged: false }]} tag="ins" /></p></div>
      </div></div></li>`;
}

const scoreOf = (record, score) => (record && score !== null ? `match ${percent(score)}` : "");

/** A text, whose words that the other one has not are marked. */
const Words = ({ pieces, tag }) =>
  pieces.some(({ text }) => text) ? pieces.map(({ text, isChanged }, index) => (isChanged ? html`<${tag} key=${index}>${text}<//>` : text)) : html`<em>no text</em>`;
