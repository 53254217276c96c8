// A record as a person checks it: the picture with its entries drawn over it, the sentences with the entries that they
// rest on, and all entries with scores and reasons. Whatever is lit in one of them is lit in all.
import { createContext, html, useContext, useEffect, useMemo, useState } from "./html.js";
import { isPassing, picture, previewPath } from "./api.js";
import { DRAWN, SCORED, entriesOf, entryNamed, nameOf, wordsOf } from "./layers.js";
import { outlineOf } from "./masks.js";
import { PanZoom } from "./panzoom.js";
import { Chip, Foldable } from "./parts.js";
import { go, href, route, useRoute } from "./router.js";
import { count, counted, percent, words } from "./text.js";

const AGAIN = 4000; // milliseconds until a picture is asked for again; the pause doubles up to MOST_AGAIN
const MOST_AGAIN = 60000;

/** What is lit. names: of entries; source: the entry, or the sentence, that is pointed at. A sentence lights the entries
 * that it rests on, and an entry lights the sentences that rest on it; neither lights more of its own kind. */
const NOTHING = { names: [], source: null };
const Lit = createContext({ lit: NOTHING, pinned: NOTHING, light: () => {}, pin: () => {} });

/** Share what is lit among the views of one record: while something is pointed at, that; else what was clicked. */
export function LitScope({ children }) {
  const [pointed, light] = useState(NOTHING);
  const [pinned, setPinned] = useState(NOTHING);
  const value = useMemo(() => ({
    lit: pointed.source === null ? pinned : pointed,
    pinned,
    light,
    pin: (next) => setPinned((old) => (old.source === next.source ? NOTHING : next)),
  }), [pointed, pinned]);
  return html`<${Lit.Provider} value=${value}>${children}<//>`;
}

/** Attributes of an element that stands for an entry, or for a sentence with the entries that it rests on: pointing at
 * it or focusing it lights them, a click keeps them lit. source: an entry's name, or any object for a sentence. */
function useLighting(names, source) {
  const { lit, pinned, light, pin } = useContext(Lit);
  const isEntry = typeof source === "string";
  const next = { names, source };
  return {
    isLit: lit.source !== null && (lit.source === source || (isEntry ? lit.names.includes(source) : names.includes(lit.source))),
    isPinned: pinned.source === source,
    on: {
      onPointerEnter: () => light(next),
      onPointerLeave: () => light(NOTHING),
      onFocus: () => light(next),
      onBlur: () => light(NOTHING),
      onClick: () => pin(next),
    },
  };
}

/** A text of a record: "description", or the name of a variant. Null if the record has none of this name.
 * @returns {{name: string, title: string, language: string|null, text: string,
 *   sentences: import("./types.js").Sentence[], turns: import("./types.js").Turn[],
 *   verification: import("./types.js").Verification|null}|null} */
export function textOf(record, name = "description") {
  if (name === "description") {
    const found = record.description;
    return found && { name, title: name, language: null, turns: [], verification: record.verification ?? null, ...found };
  }
  const variant = (record.variants ?? []).find((one) => `${one.name}.${one.language}` === name);
  return variant ? { ...variant, name, title: `${variant.name} (${variant.language})` } : null;
}

/** The names of a record's texts, the description first. */
export const textNames = (record) => [
  ...(record.description ? ["description"] : []),
  ...(record.variants ?? []).map((one) => `${one.name}.${one.language}`),
];

/** The sentences of a text as they are shown: those that remain with their evidence, and those that were cut in their
 * places, with the reason. composed: the sentence as it was composed, if something of it was cut; claims: of it. */
export function shownSentences(text) {
  const left = [...text.sentences];
  const remaining = (sentence) => ({ text: sentence.text, evidence: sentence.evidence, isCut: false, reason: null,
    composed: null, claims: [] });
  if (!text.verification) return left.map(remaining);
  const shown = [];
  for (const checked of text.verification.sentences) {
    if (checked.kept === null) {
      const evidence = [...new Set(checked.claims.flatMap((claim) => claim.evidence))];
      shown.push({ text: checked.text, evidence, isCut: true, reason: checked.reason, composed: null, claims: checked.claims });
      continue;
    }
    const at = left.findIndex((sentence) => sentence.text === checked.kept);
    const sentence = at < 0 ? { text: checked.kept, evidence: [] } : left.splice(at, 1)[0];
    const composed = checked.kept === checked.text ? null : checked.text;
    shown.push({ ...remaining(sentence), composed, reason: checked.reason, claims: checked.claims });
  }
  // sentences that no composed one became, such as those of a text from the layers
  return [...shown, ...left.map(remaining)];
}

/** A record with its picture, texts and entries. record may be partial while it is computed. url: of its picture, if
 * the service does not have it; text: which text is shown first; identity: of its shard, if it is known. */
export function EvidenceView({ record, job, url = null, text = "description", identity = "" }) {
  const [hidden, setHidden] = useState(new Set());
  const [dropped, setDropped] = useState(false);
  const toggle = (name) => setHidden((old) => new Set(old.has(name) ? [...old].filter((one) => one !== name) : [...old, name]));
  const shown = usePicture(url, job, record.key, identity, record.image?.uri);
  return html`<${LitScope}>
    <div class="evidence">
      <div class="side">
        <${PictureLayers} record=${record} url=${shown} hidden=${hidden} dropped=${dropped} />
        <${LayerSwitches} record=${record} hidden=${hidden} toggle=${toggle} dropped=${dropped} setDropped=${setDropped} />
      </div>
      <div class="side">
        <${Notes} record=${record} />
        <${Texts} record=${record} url=${shown} first=${text} />
        <${EntryLists} record=${record} />
      </div>
    </div>
  <//>`;
}

/** The blob address of a record's picture; null until it is there, "" if the service has none or does not answer now. */
export function usePicture(url, job, key, identity = "", uri = "") {
  const [found, set] = useState(url); // a picture that was sent is shown until the service's own is there
  useEffect(() => {
    if (url !== null || !key) return undefined;
    let current = true;
    let timer = 0;
    let pause = AGAIN;
    const load = () => picture(previewPath(job, key, 1600, identity, uri)).then((blob) => current && set(blob), (error) => {
      if (!current) return;
      set("");
      if (isPassing(error)) timer = setTimeout(load, pause);
      pause = Math.min(pause * 2, MOST_AGAIN);
    });
    load();
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [url, job, key, identity, uri]);
  return url ?? found;
}

/** The picture with the entries that have places, as SVG over it. hidden: names of layers; dropped: show these too. */
export function PictureLayers({ record, url, hidden = new Set(), dropped = false }) {
  const [loaded, setLoaded] = useState({ url: null, size: [0, 0] }); // what the browser has made of the picture
  const own = loaded.url === url ? loaded.size : [0, 0];
  const width = record.width ?? own?.[0] ?? 0;
  const height = record.height ?? own?.[1] ?? 0;
  const drawn = useMemo(() => drawnEntries(record), [record]);
  const visible = drawn.filter(({ layer, entry }) => !hidden.has(layer.name) && (entry.kept || dropped));
  const alt = record.description?.text || record.caption?.text || record.alt_text || "the picture";
  const measure = ({ target }) => setLoaded({ url, size: [target.naturalWidth, target.naturalHeight] });
  // such as a TIFF from this machine, until the service has made a JPEG of it
  const isUnknown = own === null;
  if (url === "" || isUnknown) return html`<p class="no-picture tall">The picture cannot be shown${isUnknown && !record.image ? " yet" : ""}.</p>`;
  // the frame has the picture's height before the picture is there: what stands below it does not jump
  return html`<${PanZoom} label="Picture" size=${[width, height]}>
    ${url && html`<img src=${url} alt=${alt} onLoad=${measure} onError=${() => setLoaded({ url, size: null })} draggable=${false} />`}
    ${width > 0 && html`<svg class="over" viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
      ${visible.map((one) => html`<${Shape} key=${one.name} one=${one} scale=${[width, height]} />`)}
    </svg>`}
  <//>`;
}

/** The entries with boxes, large ones first, so that small ones lie above them and can be pointed at. */
function drawnEntries(record) {
  const all = DRAWN.flatMap((layer) =>
    entriesOf(layer, record).map((entry, index) => ({ layer, entry, name: nameOf(layer, index) })));
  const area = ({ entry: { box } }) => (box[2] - box[0]) * (box[3] - box[1]);
  return all.sort((a, b) => area(b) - area(a));
}

function Shape({ one: { layer, entry, name }, scale: [width, height] }) {
  const { isLit, on } = useLighting([name], name);
  const outline = useMemo(() => (entry.mask ? outlineOf(entry.mask) : null), [entry.mask]);
  const [x1, y1, x2, y2] = entry.box;
  const look = `shape ${layer.name} ${entry.kept ? "" : "dropped"} ${isLit ? "lit" : ""}`;
  const label = html`<title>${wordsOf(layer, entry)}${entry.kept ? "" : ` (dropped: ${words(entry.reason)})`}</title>`;
  if (outline) {
    const fit = `scale(${width / entry.mask.size[1]} ${height / entry.mask.size[0]})`;
    return html`<path class=${look} d=${outline} transform=${fit} fill-rule="evenodd" ...${on}>${label}</path>`;
  }
  return html`<rect class=${look} x=${x1} y=${y1} width=${Math.max(0, x2 - x1)} height=${Math.max(0, y2 - y1)} ...${on}>${label}</rect>`;
}

/** Which layers are drawn, and whether dropped entries are. */
export function LayerSwitches({ record, hidden, toggle, dropped, setDropped }) {
  const present = DRAWN.filter((layer) => entriesOf(layer, record).length);
  const drawn = present.filter((layer) => dropped || entriesOf(layer, record).some((entry) => entry.kept));
  const lost = present.some((layer) => entriesOf(layer, record).some((entry) => !entry.kept));
  if (!present.length) return null;
  return html`<fieldset class="switches"><legend>Drawn on the picture</legend>
    ${drawn.map((layer) => html`<label class=${layer.name} key=${layer.name}>
      <input type="checkbox" checked=${!hidden.has(layer.name)} onChange=${() => toggle(layer.name)} />
      <span class="swatch" aria-hidden="true"></span>${layer.title} (${count(entriesOf(layer, record).filter((entry) => entry.kept).length)})
    </label>`)}
    ${lost && html`<label><input type="checkbox" checked=${dropped} onChange=${() => setDropped(!dropped)} />dropped entries too</label>`}
  </fieldset>`;
}

/** Why an image has failed or was filtered, and the warnings of its row. */
export const Notes = ({ record }) => html`
  ${record.failure && html`<p class="fault">${record.status === "filtered" ? "Filtered by" : "Failed in"} ${record.failure.stage}
    (${words(record.failure.error_type)}): ${record.failure.detail}</p>`}
  ${(record.warnings ?? []).map((one) => html`<p class="warning" key=${one.type}>${one.detail}</p>`)}`;

/** The texts of a record, one at a time or two side by side. The address keeps which: ?text=NAME&beside=NAME */
export function Texts({ record, url, first = "description" }) {
  const names = textNames(record);
  const { query } = useRoute();
  const known = (name) => (names.includes(name) ? name : null);
  const left = known(query.text) ?? known(first) ?? names[0];
  const right = known(query.beside);
  if (!left) return null;
  const choose = (name) => (event) => {
    const { parts } = route();
    go(href(parts, { ...query, [name]: event.target.value }), { replace: true });
  };
  const options = names.map((one) => html`<option key=${one} value=${one}>${textOf(record, one).title}</option>`);
  return html`<section class="texts">
    ${names.length > 1 && html`<div class="row">
      <label>Text <select value=${left} onChange=${choose("text")}>${options}</select></label>
      <label>Beside it <select value=${right ?? ""} onChange=${choose("beside")}><option value="">nothing</option>${options}</select></label>
    </div>`}
    <div class=${right ? "beside" : ""}>${[left, ...(right ? [right] : [])].map((name, index) => html`<div key=${index}>
      <${TitledText} record=${record} name=${name} url=${url} /></div>`)}</div>
  </section>`;
}

function TitledText({ record, name, url }) {
  const text = useMemo(() => textOf(record, name), [record, name]);
  return html`<h3>${text.title}</h3><${TextView} record=${record} text=${text} url=${url} />`;
}

/** One text of a record: its sentences, or its questions and answers. */
export function TextView({ record, text, url }) {
  const origin = { composed_again: "Composed a second time: nothing was left of the first text.", layers: "Composed from the layers alone: nothing was left of the model's text." }[text.verification?.origin];
  // the same objects as long as the text is the same: they stand for what is lit
  const sentences = useMemo(() => shownSentences(text), [text]);
  const answers = useMemo(() => text.turns.map((turn) => ({ text: turn.answer, evidence: turn.evidence, claims: [] })), [text]);
  if (text.turns.length) {
    return html`<dl class="turns">${text.turns.map((turn, index) => html`<dt key=${`q${index}`}>${turn.question}</dt>
      <dd key=${`a${index}`}><${SentenceButton} record=${record} sentence=${answers[index]} url=${url} /></dd>`)}</dl>`;
  }
  if (!sentences.length) return html`<${Foldable} text=${text.text} />`;
  return html`${origin && html`<p class="warning">${origin}</p>`}
    <ol class="sentences">${sentences.map((sentence, index) => html`<li key=${index}>
      <${SentenceButton} record=${record} sentence=${sentence} url=${url} /></li>`)}</ol>`;
}

/** A sentence that lights its evidence; lit, it shows the crops of it. */
export function SentenceButton({ record, sentence, url }) {
  const { isLit, isPinned, on } = useLighting(sentence.evidence, sentence);
  const found = sentence.evidence.map((name) => entryNamed(record, name)).filter(Boolean);
  return html`<button type="button" aria-pressed=${isPinned} class=${`sentence ${sentence.isCut ? "cut" : ""} ${isLit ? "lit" : ""}`} ...${on}>
      <span class="words">${sentence.isCut ? html`<s>${sentence.text}</s>` : sentence.text}</span>
      ${sentence.reason && html` <${Chip} kind="bad">${sentence.isCut ? "cut" : "shortened"}: ${words(sentence.reason)}<//>`}
      ${sentence.composed && html`<span class="composed">composed as: <s>${sentence.composed}</s></span>`}
      ${!sentence.isCut && !sentence.evidence.length && html` <${Chip} kind="warn">no evidence<//>`}
    </button>
    ${isLit && url && html`<div class="crops">${found.filter(({ entry }) => entry.box).slice(0, 8).map((one) => html`
      <${Crop} key=${one.name} record=${record} one=${one} url=${url} />`)}</div>`}
    ${sentence.claims.length > 0 && html`<details class="claims"><summary>${counted(sentence.claims.length, "checked claim")}</summary><ul>
      ${sentence.claims.map((claim, index) => html`<li key=${index}><${ClaimLine} claim=${claim} /></li>`)}</ul></details>`}`;
}

const ClaimLine = ({ claim }) => html`${claim.kind}: ${claim.text} ${
  claim.supported === null
    ? html`<${Chip}>not judged<//>`
    : claim.supported
      ? html`<${Chip} kind="good">supported<//>`
      : html`<${Chip} kind="bad">${words(claim.reason ?? "not supported")}<//>`
} ${percent(claim.score)}`;

/** The part of the picture that an entry's box has, with a little around it. */
export function Crop({ record, one: { layer, entry }, url }) {
  const [x1, y1, x2, y2] = entry.box;
  const edge = Math.max(x2 - x1, y2 - y1) * 0.08 + 2;
  const box = [x1 - edge, y1 - edge, x2 - x1 + 2 * edge, y2 - y1 + 2 * edge];
  return html`<figure class=${`crop ${layer.name}`}>
    <svg viewBox=${box.join(" ")} role="img" aria-label=${wordsOf(layer, entry)}>
      <image href=${url} width=${record.width} height=${record.height} preserveAspectRatio="none" />
    </svg>
    <figcaption>${wordsOf(layer, entry)} ${percent(entry.match ?? entry.score)}</figcaption>
  </figure>`;
}

/** All layers with scores and reasons; entries that were dropped come after those that were kept. */
export function EntryLists({ record }) {
  return html`${SCORED.filter((layer) => record[layer.name] !== null && record[layer.name] !== undefined).map((layer) => {
    const entries = entriesOf(layer, record).map((entry, index) => ({ entry, name: nameOf(layer, index) }));
    const kept = entries.filter(({ entry }) => entry.kept);
    const lost = entries.filter(({ entry }) => !entry.kept);
    return html`<section class=${`entries ${layer.name}`} key=${layer.name}>
      <h3><span class="swatch" aria-hidden="true"></span>${layer.title} <small>${count(kept.length)} kept${lost.length > 0 && `, ${count(lost.length)} dropped`}</small></h3>
      ${!entries.length && html`<p class="none">nothing found</p>`}
      ${kept.length > 0 && html`<${EntryList} layer=${layer} entries=${kept} />`}
      ${lost.length > 0 && html`<details><summary>${count(lost.length)} dropped</summary><${EntryList} layer=${layer} entries=${lost} /></details>`}
    </section>`;
  })}
  ${record.alt_text && html`<section class="entries"><h3>alt text</h3><${Foldable} text=${record.alt_text} /></section>`}`;
}

const EntryList = ({ layer, entries }) => html`<ul>${entries.map(({ entry, name }) => html`<li key=${name}>
  <${EntryButton} layer=${layer} entry=${entry} name=${name} /></li>`)}</ul>`;

function EntryButton({ layer, entry, name }) {
  const { isLit, isPinned, on } = useLighting([name], name);
  return html`<button type="button" aria-pressed=${isPinned} class=${`entry ${entry.kept ? "" : "dropped"} ${isLit ? "lit" : ""}`} ...${on}>
    <span class="words">${wordsOf(layer, entry)}</span>
    ${!entry.kept && html`<${Chip} kind="bad">${words(entry.reason)}<//>`}
    <small>${["match", "score"].filter((name) => entry[name] !== null).map((name) => `${name} ${percent(entry[name])}`).join(", ")}</small>
  </button>`;
}
