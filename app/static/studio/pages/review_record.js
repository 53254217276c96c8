// One record that is judged: its evidence, and what can be said of it by keyboard or by buttons.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { EvidenceView } from "../evidence.js";
import { Busy, Chip } from "../parts.js";
import { showTop } from "../scroll.js";
import { words } from "../text.js";

// as `Reason` in strata/judgments/judgment.py
const REASONS = ["unsupported_object", "wrong_attribute", "wrong_count", "wrong_relation", "unread_text", "contradicts",
  "incomplete", "language", "harmful", "other"];
const KEYS = [["j", "next record"], ["k", "record before"], ["a", "accept"], ["r", "reject, then a digit for the reason"],
  ["e", "edit sentence by sentence"], ["u", "undo"], ["?", "show or hide the keys"], ["Escape", "leave a form"]];
const USES_KEYS = "strata.review.keys";
const KINDS = { accepted: "good", rejected: "bad", edited: "warn" };

export function Judging({ session }) {
  const { item, at } = session;
  const [mode, draw] = useState("view"); // "view", "reject" or "edit"
  const now = useRef(mode); // the mode at once: a fast typist presses the next key before the page is drawn
  const setMode = (next) => {
    now.current = next;
    draw(next);
  };
  const [isHelp, setHelp] = useState(false);
  const [usesKeys, setUsesKeys] = useState(() => localStorage.getItem(USES_KEYS) !== "off");
  const heading = useRef(null);
  const done = (act) => (...given) => {
    setMode("view");
    act(...given);
  };
  const acts = {
    j: done(() => session.go(session.at + 1)),
    k: done(() => session.go(session.at - 1)),
    a: done(() => session.judge("accepted")),
    r: () => setMode("reject"),
    e: () => setMode("edit"),
    u: done(() => session.undo()),
    "?": () => setHelp((is) => !is),
  };
  const reject = done((more) => session.judge("rejected", more));
  useKeys(usesKeys, now, { view: acts, reject: reasonKeys(reject), edit: {} }, () => setMode("view"));
  // a new record is told to a screen reader, and the keys of forms do not reach the old one
  useEffect(() => {
    if (mode === "view") heading.current?.focus({ preventScroll: true });
  }, [at, mode]);
  // another record begins at its top, as far down as one had read the one before
  useLayoutEffect(() => showTop(heading.current), [at]);
  const toggleKeys = () => {
    localStorage.setItem(USES_KEYS, usesKeys ? "off" : "on");
    setUsesKeys(!usesKeys);
  };
  return html`<section class="judging" aria-label="record">
    <h2 ref=${heading} tabindex="-1">Record ${at + 1} of ${session.total}${item && html` <small>${item.key}</small>`} <${Said} judgment=${session.judgmentAt(at)} /></h2>
    <div class="controls">
      <${Bar} session=${session} acts=${acts} item=${item} />
      ${item && mode === "reject" && html`<${Rejection} leave=${() => setMode("view")} reject=${reject} />`}
    </div>
    ${isHelp && html`<${Help} usesKeys=${usesKeys} toggle=${toggleKeys} close=${() => setHelp(false)} />`}
    ${!item && html`<${Busy}>Loading the record<//>`}
    ${item && html`<${Doubt} doubt=${item.doubt} />
      <div class=${mode === "edit" ? "editing beside" : ""}>
        ${mode === "edit" && html`<${Editor} key=${at} item=${item} judgment=${session.judgmentAt(at)}
          leave=${() => setMode("view")} save=${done((verdict, more) => session.judge(verdict, more))} />`}
        <${EvidenceView} key=${at} record=${item.record} job=${item.job} identity=${item.identity} />
      </div>`}
  </section>`;
}

/** Single keys act unless something is written, or a key is held with Ctrl, Alt or Meta. mode: a reference to it;
 * acts: what the keys of each mode do. */
function useKeys(isOn, mode, acts, leave) {
  const newest = useRef(null);
  newest.current = { isOn, acts, leave };
  // from the moment when the record is drawn, not only some time later: a busy browser would lose the first key
  useLayoutEffect(() => {
    const press = (event) => {
      const given = newest.current;
      if (event.key === "Escape" && mode.current !== "view") {
        given.leave();
        return;
      }
      const writes = event.target.closest("input, textarea, select, [contenteditable]");
      if (!given.isOn || writes || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "Enter" && event.target.closest("button, a, summary")) return; // it presses these
      const keys = given.acts[mode.current];
      const act = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
      if (act) {
        event.preventDefault();
        act();
      }
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
}

/** The digits choose a reason; Enter rejects without one, as the button does that has the focus. */
const reasonKeys = (reject) => ({
  Enter: () => reject({}),
  ...Object.fromEntries(REASONS.map((reason, index) => [String((index + 1) % 10), () => reject({ reason })])),
});

const Said = ({ judgment }) => (judgment
  ? html`<${Chip} kind=${KINDS[judgment.verdict]}>${judgment.verdict}${judgment.reason ? `: ${words(judgment.reason)}` : ""}<//>`
  : null);

function Bar({ session, acts, item }) {
  const button = (key, text, off, look = "") => html`<button type="button" class=${look} disabled=${off} onClick=${acts[key]} aria-keyshortcuts=${key}>
    ${text} <kbd aria-hidden="true">${key}</kbd></button>`;
  return html`<div class="bar" role="toolbar" aria-label="judge">
    ${button("a", "Accept", !item, "primary")}${button("r", "Reject", !item)}${button("e", "Edit", !item)}
    ${button("u", "Undo", !session.done.length)}${button("k", "Before", session.at === 0)}${button("j", "Next", false)}
    ${button("?", "Keys", false)}</div>`;
}

/** The keys, over the page, so that they are seen wherever it is scrolled to; ? closes them as Escape does. */
function Help({ usesKeys, toggle, close }) {
  const dialog = useRef(null);
  useLayoutEffect(() => dialog.current.showModal(), []);
  const press = (event) => {
    event.stopPropagation(); // no key judges the record behind it
    if (event.key === "?") dialog.current.close();
  };
  return html`<dialog class="detail keys" ref=${dialog} aria-labelledby="keys-title" onClose=${close} onKeyDown=${press}>
    <header><h2 id="keys-title">Keys</h2><button type="button" onClick=${() => dialog.current.close()}>Close</button></header>
    <dl>${KEYS.map(([key, text]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}</dl>
    <label><input type="checkbox" checked=${usesKeys} onChange=${toggle} />single keys act</label></dialog>`;
}

const Doubt = ({ doubt }) => (doubt.score > 0
  ? html`<p class="hint">Doubt ${doubt.score.toFixed(2)}: ${[
      doubt.cut > 0 && `${Math.round(doubt.cut * 100)} % of the composed sentences were cut`,
      doubt.unsupported > 0 && `${Math.round(doubt.unsupported * 100)} % of the sentences have no evidence`,
      doubt.lowest_match < 1 && `lowest match ${doubt.lowest_match.toFixed(2)}`].filter(Boolean).join("; ")}</p>`
  : null);

/** Why a description is rejected: a digit chooses a reason, Enter rejects without one. It stays in the window as the bar
 * above it does. */
function Rejection({ leave, reject }) {
  const first = useRef(null);
  useEffect(() => first.current?.focus({ preventScroll: true }), []);
  return html`<fieldset class="rejection"><legend>Why is it rejected?</legend>
    <button type="button" ref=${first} onClick=${() => reject({})}>no reason</button>
    ${REASONS.map((reason, index) => html`<button type="button" key=${reason} onClick=${() => reject({ reason })}>
      <kbd aria-hidden="true">${(index + 1) % 10}</kbd> ${words(reason)}</button>`)}
    <button type="button" onClick=${leave}>Cancel <kbd aria-hidden="true">Esc</kbd></button>
  </fieldset>`;
}

/** The sentences of a description, each in a field: an empty one is left out. Ctrl+Enter saves. */
function Editor({ item, judgment, leave, save }) {
  const { description } = item.record;
  const texts = description.sentences.length ? description.sentences.map(({ text }) => text) : [description.text];
  const earlier = new Map((judgment?.sentences ?? []).map((one) => [one.index, one]));
  const [edited, setEdited] = useState(() => texts.map((text, index) => {
    const one = earlier.get(index);
    return one?.verdict === "rejected" ? "" : (one?.edited ?? text);
  }));
  const [reasons, setReasons] = useState(() => texts.map((_, index) => earlier.get(index)?.reason ?? ""));
  const first = useRef(null);
  useEffect(() => first.current?.focus(), []);
  const change = (list, set, index) => (event) => set(list.map((one, at) => (at === index ? event.target.value : one)));
  const finish = () => {
    const sentences = texts.flatMap((text, index) => sentenceOf(index, text, edited[index], reasons[index]));
    if (edited.every((text) => !text.trim())) save("rejected", { sentences });
    else if (sentences.length) save("edited", { sentences });
    else save("accepted", {});
  };
  const press = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      finish();
    }
  };
  return html`<form class="editor" onKeyDown=${press} onSubmit=${(event) => { event.preventDefault(); finish(); }}>
    <p class="hint" id="editor-hint">Correct the sentences; empty one to leave it out. <kbd>Ctrl</kbd>+<kbd>Enter</kbd> saves, <kbd>Esc</kbd> cancels.</p>
    <ol>${texts.map((text, index) => html`<li key=${index}>
      <textarea ref=${index === 0 ? first : undefined} rows="2" maxlength="10000" aria-label=${`sentence ${index + 1}`} aria-describedby="editor-hint"
        value=${edited[index]} onInput=${change(edited, setEdited, index)}></textarea>
      ${edited[index].trim() !== text.trim() && html`<label class="field">Why <select value=${reasons[index]} onChange=${change(reasons, setReasons, index)}>
        <option value="">not said</option>${REASONS.map((reason) => html`<option key=${reason} value=${reason}>${words(reason)}</option>`)}</select></label>
        <span class="composed">${edited[index].trim() ? "was" : "left out"}: <s>${text}</s></span>`}
    </li>`)}</ol>
    <p class="row"><button class="primary">Save</button><button type="button" onClick=${leave}>Cancel</button></p>
  </form>`;
}

/** The verdict on a sentence; none on one that stays as it is. */
function sentenceOf(index, text, edited, reason) {
  if (edited.trim() === text.trim()) return [];
  const why = reason ? { reason } : {};
  return edited.trim() ? [{ index, verdict: "edited", edited, ...why }] : [{ index, verdict: "rejected", ...why }];
}
