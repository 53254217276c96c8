// Jobs: all jobs, newest first, live.
import { html, useRef, useState } from "../html.js";
import { get } from "../api.js";
import { Chip, Fault } from "../parts.js";
import { go, href } from "../router.js";
import { count, duration, rate, time, words } from "../text.js";
import { useEvery, useFields, useTitle } from "../use.js";
import { Submit } from "./submit.js";

const STATUSES = ["validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "cancelled"];
const KINDS = { completed: "good", failed: "bad", cancelled: "warn" };
const LIMIT = 20;

/** The chip of a job's status. */
export const StatusChip = ({ job }) => html`<${Chip} kind=${KINDS[job.status] ?? "plain"}>${words(job.status)}<//>`;

/** How many images of a job have a result; those that a cancelled or failed job has given up have none. */
export function doneOf(job) {
  const counts = job.request_counts;
  return counts.succeeded + counts.filtered + counts.failed;
}

export const Jobs = ({ parts: [name], query }) => (name === "new" ? html`<${Submit} query=${query} />` : html`<${JobList} query=${query} />`);

function JobList({ query }) {
  useTitle("Jobs");
  const [page, set] = useState({ jobs: null, next: null });
  const [error, setError] = useState(null);
  const filters = { status: query.status, kind: query.kind, profile: query.profile };
  useEvery(2000, async () => {
    try {
      set(await get("v1/jobs", { ...filters, cursor: query.cursor, limit: LIMIT }));
      setError(null);
    } catch (failed) {
      setError(failed);
    }
  }, [query.status, query.kind, query.profile, query.cursor]);
  const fields = useRef(null);
  useFields(fields, { profile: query.profile });
  const filter = (name) => (event) => go(href(["jobs"], { ...filters, [name]: event.target.value }));
  return html`<h1>Jobs</h1>
    <p><a class="button" href=${href(["jobs", "new"])}>Submit a job</a></p>
    <div class="row" ref=${fields}>
      <label class="field">Status <select value=${query.status ?? ""} onChange=${filter("status")}><option value="">all</option>
        ${STATUSES.map((one) => html`<option key=${one} value=${one}>${words(one)}</option>`)}</select></label>
      <label class="field">Kind <select value=${query.kind ?? ""} onChange=${filter("kind")}><option value="">all</option>
        <option value="batch">batch</option><option value="image">image</option></select></label>
      <label class="field">Profile <input name="profile" onChange=${filter("profile")} /></label>
    </div>
    <${Fault} error=${error} />
    ${page.jobs && !page.jobs.length && html`<p class="none">No jobs.</p>`}
    ${page.jobs?.length > 0 && html`<table class="table" data-rows tabindex="-1">
      <thead><tr><th>job</th><th>profile</th><th>status</th><th>images</th><th class="number">rate</th><th class="number">remaining</th><th>created</th></tr></thead>
      <tbody>${page.jobs.map((job) => html`<${JobRow} key=${job.id} job=${job} />`)}</tbody>
    </table>`}
    <p class="row">${query.cursor && html`<a href=${href(["jobs"], filters)}>Newest</a>`}
      ${page.next && html`<a href=${href(["jobs"], { ...filters, cursor: page.next })}>Older</a>`}</p>`;
}

function JobRow({ job }) {
  const counts = job.request_counts;
  const reason = job.error ?? (job.waiting && `waits for ${job.waiting.stage}: ${job.waiting.reason}`);
  return html`<tr>
    <td data-label="job"><span><a href=${href(["job", job.id])}><code>${job.id}</code></a> <small>${job.kind}</small></span></td>
    <td data-label="profile"><span>${job.profile}</span></td>
    <td data-label="status"><span><${StatusChip} job=${job} />${reason && html`<span class="clamped" title=${reason}>${reason}</span>`}</span></td>
    <td data-label="images"><span><progress max=${counts.total || 1} value=${doneOf(job)} aria-label=${`images of ${job.id}`}></progress>
      ${count(doneOf(job))} / ${count(counts.total)}${counts.failed > 0 && html`, <strong>${count(counts.failed)} failed</strong>`}</span></td>
    <td data-label="rate" class="number"><span>${rate(job.images_per_second)}</span></td>
    <td data-label="remaining" class="number"><span>${duration(job.eta_seconds)}</span></td>
    <td data-label="created"><span>${time(job.created_at)}</span></td>
  </tr>`;
}
