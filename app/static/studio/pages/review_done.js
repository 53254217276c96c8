// The end of a queue: what is left to do, or how far the reviewers agree.
import { html, useEffect, useLayoutEffect, useRef } from "../html.js";
import { Busy, Fault } from "../parts.js";
import { href } from "../router.js";
import { showTop } from "../scroll.js";
import { counted } from "../text.js";
import { useLoaded } from "../use.js";

const shown = (alpha) => (alpha === null ? "not defined" : alpha.toFixed(2));

export function Done({ session }) {
  const left = session.total - session.count;
  const heading = useRef(null);
  useLayoutEffect(() => showTop(heading.current), []);
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
    const press = (event) => {
      if (event.target.closest("input, textarea, select") || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "k") session.go(session.total - 1);
      if (event.key === "u") session.undo();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
  const back = html`<button type="button" onClick=${() => session.go(session.total - 1)}>Before <kbd aria-hidden="true">k</kbd></button>
    <button type="button" disabled=${!session.done.length} onClick=${() => session.undo()}>Undo <kbd aria-hidden="true">u</kbd></button>`;
  if (left > 0) {
    return html`<h2 ref=${heading} tabindex="-1">The end of the queue</h2><p>${counted(left, "record")} not judged yet.</p>
      <p class="row"><button type="button" class="primary" onClick=${() => session.go(session.nextOpen(0))}>Go to the first of them</button>${back}</p>`;
  }
  return html`<h2 ref=${heading} tabindex="-1">All ${counted(session.total, "record")} judged</h2>
    <p class="row">${back}</p><${Agreement} session=${session} />`;
}

function Agreement({ session }) {
  const { value, error, reload } = useLoaded((signal) => session.agreement(signal), [session.unsaved === 0]);
  if (error) return html`<${Fault} error=${error} retry=${reload} />`;
  if (!value) return html`<${Busy}>Loading the agreement<//>`;
  const found = value.agreement;
  if (!found) return html`<p class="none">The agreement is shown when the service has all your judgments.</p>`;
  const names = Object.keys(found.reviewers);
  if (names.length < 2) return html`<p>Nobody else has judged records of this queue yet.</p>`;
  return html`<h3>Agreement</h3>
    <p>Krippendorff's alpha: 1 is perfect agreement, 0 is what chance gives. On verdicts ${shown(found.alpha)},
      on whether a record is rejected ${shown(found.passes_alpha)}, on sentences ${shown(found.sentence_alpha)};
      ${counted(found.records, "record")} judged by two or more.</p>
    <table class="table"><thead><tr><th>reviewers</th><th class="number">both judged</th><th class="number">equal</th><th class="number">alpha</th></tr></thead>
      <tbody>${found.pairs.map((pair) => html`<tr key=${pair.reviewers.join(" ")}><td data-label="reviewers">${pair.reviewers.join(" and ")}</td>
        <td data-label="both judged" class="number">${pair.records}</td><td data-label="equal" class="number">${pair.equal}</td>
        <td data-label="alpha" class="number">${shown(pair.alpha)}</td></tr>`)}</tbody></table>
    ${found.disagreements.length > 0 && html`<h3>${counted(found.disagreements.length, "disagreement")}</h3>
      <ul>${found.disagreements.map((one) => html`<li key=${`${one.identity}/${one.key}`}>
        <a href=${href(["records", one.job, one.key])}>${one.key}</a>: ${Object.entries(one.verdicts).map(([name, verdict]) => `${name} ${verdict}`).join(", ")}</li>`)}</ul>`}`;
}
