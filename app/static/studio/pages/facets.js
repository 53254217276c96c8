// Facets of a search: how many rows have what. A click on a bar narrows the search to its rows, another one undoes it.
import { html } from "../html.js";
import { Busy, Details, Fault } from "../parts.js";
import { go } from "../router.js";
import { count, counted, words } from "../text.js";

/** The kinds of labels, with their titles. Several of a kind are lines of the address's parameter. */
const TITLES = { thing: "Things", tag: "Tags", dropped: "Entries dropped for", cut: "Sentences cut for", failure: "Failures and rules" };
export const LABELS = Object.keys(TITLES);
const SHOWN = 8; // labels of a kind, before the others are asked for

/** The chosen labels of a kind. */
export const chosenOf = (query, name) => (query[name] ?? "").split("\n").filter(Boolean);

export function FacetPanel({ facets, error, loading, query, link }) {
  const toggle = (name, value) => go(link({ [name]: query[name] === value ? "" : value }));
  const toggleLabel = (name, value) => {
    const chosen = chosenOf(query, name);
    go(link({ [name]: (chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value]).join("\n") }));
  };
  const isWide = window.matchMedia("(min-width: 60rem)").matches;
  return html`<${Details} class="facets" isOpen=${isWide} aria-busy=${String(loading)} summary="Narrow the search">
    <${Fault} error=${error?.type === "search-not-ready" ? null : error} />
    ${!facets && !error && html`<${Busy}>Counting<//>`}
    ${facets && html`
      <${Bars} title="Status" values=${facets.status} total=${facets.total} chosen=${[query.status]} choose=${(value) => toggle("status", value)} />
      <${Bars} title="Text in the picture" values=${facets.has_text} total=${facets.total} chosen=${[query.has_text]}
        name=${(value) => (value === "true" ? "with text" : "without text")} choose=${(value) => toggle("has_text", value)} />
      <${Histogram} title="Score (mean match)" field="score" values=${facets.score} query=${query} link=${link} last="1" />
      <${Histogram} title="Words of the description" field="words" values=${facets.words} query=${query} link=${link} last="" />
      ${LABELS.map((name) => html`<${Bars} key=${name} title=${TITLES[name]} values=${facets[name]} total=${facets.total}
        chosen=${chosenOf(query, name)} name=${words} choose=${(value) => toggleLabel(name, value)} />`)}`}
  <//>`;
}

/** Values with their counts, as bars beside each other's names. */
function Bars({ title, values, total, chosen, choose, name = (value) => value }) {
  const there = values.filter((one) => one.count > 0 || chosen.includes(one.value));
  if (!there.length) return null;
  const bar = (one) => html`<li key=${one.value}><button type="button" aria-pressed=${chosen.includes(one.value)} onClick=${() => choose(one.value)}>
    <span class="bar" aria-hidden="true" style=${{ width: `${(100 * one.count) / Math.max(1, total)}%` }}></span>
    <span class="name">${name(one.value)}</span> <span class="number">${count(one.count)}</span></button></li>`;
  const more = there.slice(SHOWN);
  return html`<fieldset class="bars"><legend>${title}</legend><ul>${there.slice(0, SHOWN).map(bar)}</ul>
    ${more.length > 0 && html`<details><summary>${counted(more.length, "more value")}</summary><ul>${more.map(bar)}</ul></details>`}</fieldset>`;
}

/** Numbers as upright bars. A click on a bar chooses its range; a click on another bar extends the range to it. */
function Histogram({ title, field, values, query, link, last }) {
  const most = Math.max(1, ...values.map((one) => one.count));
  const ends = values.map((_, index) => endOf(values, index, field, last));
  const [from, to] = [query[`${field}_min`], query[`${field}_max`]];
  const isIn = (index) => (from || to) && Number(values[index].value) >= Number(from || 0) && (!to || (ends[index] !== "" && Number(ends[index]) <= Number(to)));
  const choose = (index) => {
    const inside = values.map((_, one) => one).filter(isIn);
    const alone = inside.length === 1 && inside[0] === index;
    const first = inside.length && !inside.includes(index) ? Math.min(index, inside[0]) : index;
    const final = inside.length && !inside.includes(index) ? Math.max(index, inside.at(-1)) : index;
    go(link(alone ? { [`${field}_min`]: "", [`${field}_max`]: "" } : { [`${field}_min`]: values[first].value, [`${field}_max`]: ends[final] }));
  };
  const label = (one, index) => `${field} ${one.value}${ends[index] === "" ? " and more" : ` to ${ends[index]}`}: ${counted(one.count, "row")}`;
  return html`<fieldset class="histogram"><legend>${title}</legend><div>${values.map((one, index) => html`
    <button type="button" key=${one.value} aria-pressed=${Boolean(isIn(index))} aria-label=${label(one, index)} title=${label(one, index)} onClick=${() => choose(index)}>
      <span class="bar" style=${{ height: `${(100 * one.count) / most}%` }}></span></button>`)}</div>
    <p class="scale" aria-hidden="true"><span>${values[0].value}</span><span>${values[Math.floor(values.length / 2)].value}</span><span>${last || `${values.at(-1).value}+`}</span></p></fieldset>`;
}

/** The greatest number of a bar. Scores are continuous, so that a bar ends where the next one begins. */
function endOf(values, index, field, last) {
  if (index === values.length - 1) return last;
  return field === "words" ? String(Number(values[index + 1].value) - 1) : values[index + 1].value;
}
