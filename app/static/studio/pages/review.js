// Review: people judge records, sentence by sentence: #/review?job=…&sample=…&seed=…
import { html, useEffect, useState } from "../html.js";
import { Busy, Chip, Fault } from "../parts.js";
import { go, href } from "../router.js";
import { useTitle } from "../use.js";
import { Done } from "./review_done.js";
import { Judging } from "./review_record.js";
import { queueOf, useSession } from "./review_session.js";
import { Start } from "./review_start.js";

const REVIEWER = "strata.reviewer";

export function Review({ query }) {
  useTitle("Review");
  const [reviewer, setReviewer] = useState(() => localStorage.getItem(REVIEWER) ?? "");
  const begin = (name, queue) => {
    localStorage.setItem(REVIEWER, name);
    setReviewer(name);
    go(href(["review"], queue));
  };
  const chosen = query.job || query.snapshot;
  return html`<h1>Review</h1>
    ${chosen && reviewer
      ? html`<${Reviewing} key=${`${reviewer} ${JSON.stringify(queueOf(query))}`} queue=${queueOf(query)} reviewer=${reviewer} />`
      : html`<${Start} queue=${queueOf(query)} reviewer=${reviewer} begin=${begin} />`}`;
}

function Reviewing({ queue, reviewer }) {
  const session = useSession(queue, reviewer);
  const source = queue.job ? html`<a href=${href(["job", queue.job])}>job ${queue.job}</a>` : `snapshot ${queue.snapshot}`;
  return html`<p class="trail">${source} · ${reviewer} · <a href=${href(["review"])}>another queue or reviewer</a></p>
    <${Progress} session=${session} />
    <${Saved} session=${session} />
    <p class="visually-hidden" role="status">${session.said}</p>
    <${Body} session=${session} />`;
}

function Body({ session }) {
  if (session.error) return html`<${Fault} error=${session.error} retry=${() => session.begin()} />`;
  if (!session.page || session.at === null) return html`<${Busy}>Loading the queue<//>`;
  if (!session.total) return html`<p class="none">No record passes: ${session.page.considered} were looked at.</p>`;
  return session.at >= session.total ? html`<${Done} session=${session} />` : html`<${Judging} session=${session} />`;
}

function Progress({ session: { page, total, count, unsaved } }) {
  if (!page || !total) return null;
  return html`<p class="progress-line"><progress max=${total} value=${count} aria-label="judged records"></progress>
    <span>${count} of ${total} judged</span>
    ${count > 0 && html`<small>${unsaved ? `saving ${unsaved}` : "saved"}</small>`}
    ${page.parts_read < page.parts && html`<${Chip} title="of the job's parts so many were drawn by the seed">${page.parts_read} of ${page.parts} parts<//>`}
    ${page.left_out > 0 && html`<${Chip} kind="warn" title="their job was deleted">${page.left_out} left out<//>`}
    </p>
    ${page.faults.map((fault) => html`<p class="warning" key=${fault}>Judgments may be missing: ${fault}</p>`)}`;
}

/** Whether the service has what was said; it warns before the tab is closed while it has not. */
function Saved({ session }) {
  const { unsaved, fault, refused } = session;
  useEffect(() => {
    const warn = (event) => event.preventDefault();
    if (unsaved && fault) window.addEventListener("beforeunload", warn);
    return () => window.removeEventListener("beforeunload", warn);
  }, [unsaved && fault]);
  if (refused.length) {
    return html`<p class="fault" role="alert">The service does not take ${refused.length} of your judgments: ${fault.message}
      <button type="button" onClick=${() => session.discard()}>Give them up</button></p>`;
  }
  if (fault) {
    return html`<p class="warning" role="alert">${unsaved} not sent yet, and kept in this browser: ${fault.message}
      <button type="button" onClick=${() => session.flush()}>Send now</button></p>`;
  }
  return null;
}
