// One job, live: #/job/ID, and its records and failures: #/job/ID?show=records|failures|filtered
import { html, useEffect, useRef, useState } from "../html.js";
import { ENDED, lines, post } from "../api.js";
import { RateChart } from "../charts.js";
import { follow } from "../events.js";
import { Busy, Chip, Details, Fault, Lost, RowChip } from "../parts.js";
import { href } from "../router.js";
import { count, counted, duration, rate, time, words } from "../text.js";
import { useLoaded, useTitle } from "../use.js";
import { StatusChip, doneOf } from "./jobs.js";

const PAGE = 50; // records a page
const MOST_FAILURES = 2000; // that are grouped by reason
const MOST_SAMPLES = 600; // of the rate that are drawn

/** A page of its own for each job: nothing of one is shown for another. */
export const JobDetail = ({ parts: [id], query }) => html`<${Detail} key=${id} id=${id} query=${query} />`;

function Detail({ id, query }) {
  useTitle(`Job ${id}`);
  const [job, set] = useState(null);
  const [error, setError] = useState(null);
  const [isLost, setLost] = useState(false);
  const [turn, setTurn] = useState(0);
  const [samples, setSamples] = useState([]);
  const first = useRef(null); // the tab that is shown if none is chosen: it stays once it has something to read
  const began = useRef(Date.now());
  useEffect(() => {
    const control = new AbortController();
    follow(`v1/jobs/${encodeURIComponent(id)}/events`, (name, data) => {
      if (name === "layer") return false;
      set((old) => ({ ...old, ...data }));
      const at = [(Date.now() - began.current) / 1000, doneOf(data), data.images_per_second];
      setSamples((old) => [...old, at].slice(-MOST_SAMPLES));
      return ENDED.includes(data.status);
    }, control.signal, setLost).catch(setError);
    return () => control.abort();
  }, [id, turn]);
  const ask = (action) => async () => {
    setError(null);
    try {
      set(await post(`v1/jobs/${encodeURIComponent(id)}/${action}`));
      setTurn((number) => number + 1);
    } catch (refused) {
      setError(refused);
    }
  };
  if (job && (doneOf(job) || ENDED.includes(job.status))) first.current ??= job.request_counts.failed > 0 ? "failures" : "records";
  return html`<p class="trail"><a href=${href(["jobs"])}>Jobs</a></p>
    <h1>Job <code>${id}</code></h1>
    <${Fault} error=${error} />
    <${Lost} isLost=${isLost} />
    ${!job && !error && html`<${Busy}>Loading the job<//>`}
    ${job && html`<${Head} job=${job} ask=${ask} />
      <${Groups} job=${job} />
      ${samples.length > 2 && html`<${RateChart} samples=${samples} />`}
      <${Rows} job=${job} show=${query.show ?? first.current ?? "records"} query=${query} />`}`;
}

/** @param {{job: import("../types.js").JobView}} given */
function Head({ job, ask }) {
  const counts = job.request_counts;
  const failed = counts.failed + job.shards.failed;
  const isEnded = ENDED.includes(job.status);
  return html`<div class="row level">
      <span class="row level"><span role="status"><${StatusChip} job=${job} /></span> <span>${job.kind} · profile ${job.profile} · priority ${job.priority === "hi" ? "high" : "low"}</span></span>
      ${!isEnded && html`<button type="button" class="danger" onClick=${ask("cancel")} disabled=${job.status === "cancelling"}>Cancel the job</button>`}
      ${isEnded && failed > 0 && html`<button type="button" onClick=${ask("retry")}>Retry what failed</button>`}
      ${counts.succeeded > 0 && html`<a href=${href(["gallery"], { job: job.id })}>In the gallery</a>`}
      ${counts.succeeded > 0 && html`<a href=${href(["review"], { job: job.id })}>Review its records</a>`}
      ${job.kind === "batch" && isEnded && counts.succeeded > 0 && html`<a href=${href(["jobs", "new"], { from: job.id })}>Describe again</a>`}
      ${counts.succeeded > 0 && (job.chosen?.sources ?? []).map((one) => html`<a key=${one} href=${href(["compare"], { a: one, b: job.id })}>Compare with ${one}</a>`)}
      ${job.kind === "image" && html`<a href=${href(["describe", job.id])}>The answer in Describe</a>`}
    </div>
    ${job.error && html`<p class="fault">${job.error}</p>`}
    ${job.waiting && html`<p class="warning">Waits for ${job.waiting.stage} since ${time(job.waiting.since)} (${counted(job.waiting.attempts, "attempt")}): ${job.waiting.reason}</p>`}
    ${job.chosen && html`<p class="hint">Images of ${job.chosen.sources.join(", ")}${job.chosen.where && html` where <code>${job.chosen.where}</code>`}</p>`}
    ${job.sample && html`<p class="hint">Describes a random sample of the images of a submission: at most ${counted(job.sample.images, "image")}, seed ${job.sample.seed}.</p>`}
    <p><progress max=${counts.total || 1} value=${doneOf(job)} aria-label="Images that are done"></progress></p>
    <dl class="facts">
      <div><dt>images</dt><dd>${count(doneOf(job))} of ${count(counts.total)}</dd></div>
      ${["succeeded", "filtered", "failed", "cancelled", "queued", "processing"].filter((name) => counts[name] > 0).map((name) => html`
        <div key=${name}><dt>${name}</dt><dd>${count(counts[name])}</dd></div>`)}
      <div><dt>rate</dt><dd>${rate(job.images_per_second)}</dd></div>
      <div><dt>${isEnded ? "took" : "remaining"}</dt><dd>${isEnded ? duration(secondsOf(job)) : duration(job.eta_seconds)}</dd></div>
      <div><dt>created</dt><dd>${time(job.created_at)}</dd></div>
      ${job.usage && html`<div><dt>tokens</dt><dd>${count(job.usage.prompt_tokens + job.usage.completion_tokens)}</dd></div>
        ${job.usage.money !== null && html`<div><dt>money</dt><dd>${job.usage.money.toPrecision(3)}</dd></div>`}`}
      ${Object.entries(job.metadata ?? {}).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>`;
}

const secondsOf = (job) => (new Date(job.finished_at) - new Date(job.started_at ?? job.created_at)) / 1000;

function Groups({ job }) {
  return html`<h2>Progress by group</h2><table class="table">
    <thead><tr><th>group</th><th class="number">images</th><th class="number">reused</th><th class="number">chunks</th></tr></thead>
    <tbody>
      <tr><td data-label="group">index</td><td data-label="shards" class="number" colspan="3">${count(job.shards.indexed)} of ${counted(job.shards.total, "shard")}${
        job.shards.failed > 0 && html`, <strong>${count(job.shards.failed)} failed</strong>`}</td></tr>
      ${Object.entries(job.groups).filter(([name]) => name !== "index").map(([name, group]) => html`<tr key=${name}><td data-label="group">${name}</td>
        <td data-label="images" class="number">${count(group.images)}</td><td data-label="reused" class="number">${count(group.reused)}</td>
        <td data-label="chunks" class="number">${count(group.chunks)}</td></tr>`)}
    </tbody></table>
    ${Object.keys(job.shards.left_out).length > 0 && html`<p class="hint">In no row: ${
      Object.entries(job.shards.left_out).map(([reason, number]) => `${count(number)} × ${words(reason)}`).join(", ")}</p>`}`;
}

function Rows({ job, show, query }) {
  const link = (name) => href(["job", job.id], { show: name });
  const counts = job.request_counts;
  const tabs = [["records", "Records", doneOf(job)], ["failures", "Failures", counts.failed + job.shards.failed], ["filtered", "Filtered", counts.filtered]];
  return html`<nav aria-label="Rows" class="tabs" data-rows tabindex="-1"><ul>${tabs.map(([name, title, number]) => html`<li key=${name}>
      <a href=${link(name)} aria-current=${name === show ? "page" : undefined}>${title} (${count(number)})</a></li>`)}</ul></nav>
    ${show === "records" ? html`<${Records} job=${job} cursor=${query.cursor} />` : html`<${Failures} key=${show} job=${job} show=${show} />`}`;
}

function Records({ job, cursor }) {
  const done = doneOf(job);
  const { value, error, loading, reload } = useLoaded((signal) =>
    lines(`v1/jobs/${encodeURIComponent(job.id)}/results`, { limit: PAGE, cursor }, { signal }), [job.id, cursor, ENDED.includes(job.status), done > 0]);
  const next = value?.next && new URL(value.next, "http://any").searchParams.get("cursor");
  return html`<${Fault} error=${error} retry=${reload} />
    ${loading && !value && html`<${Busy}>Loading the records<//>`}
    ${value && !value.rows.length && html`<p class="none">No records yet.</p>`}
    ${value?.rows.length > 0 && html`<table class="table">
      <thead><tr><th>image</th><th>status</th><th>text</th></tr></thead>
      <tbody>${value.rows.map((row, index) => html`<tr key=${`${index} ${row.key}`}>
        <td data-label="image"><a href=${href(["records", job.id, row.key], { uri: row.image.uri })}>${row.key}</a></td>
        <td data-label="status"><span><${RowChip} row=${row} /></span></td>
        <td data-label="text"><span class="clamped">${row.description?.text ?? row.caption?.text ?? row.failure?.detail ?? ""}</span></td>
      </tr>`)}</tbody></table>
    <p class="row">${cursor && html`<a href=${href(["job", job.id], { show: "records" })}>First</a>`}
      ${next && html`<a href=${href(["job", job.id], { show: "records", cursor: next })}>Next</a>`}
      ${!ENDED.includes(job.status) && html`<button type="button" onClick=${reload}>Load again</button>`}</p>`}`;
}

/** The failed or filtered rows by stage and reason, with examples. */
function Failures({ job, show }) {
  const counts = job.request_counts;
  const number = show === "filtered" ? counts.filtered : counts.failed + job.shards.failed;
  const { value, error, loading, reload } = useLoaded((signal) => failuresOf(job.id, show, signal), [job.id, show, number]);
  const groups = groupsOf(value?.rows ?? []);
  return html`<${Fault} error=${error} retry=${reload} />
    ${loading && !value && html`<${Busy}>Loading the rows<//>`}
    ${value && !groups.length && html`<p class="none">${show === "filtered" ? "No rule has rejected an image." : "Nothing has failed."}</p>`}
    ${value?.more && html`<p class="hint">The first ${count(value.rows.length)} rows are grouped; the command line lists all of them.</p>`}
    ${groups.map(({ stage, type, rows }) => html`<${Details} class="reason" key=${`${stage} ${type}`} isOpen=${groups.length === 1}
      summary=${html`<strong>${count(rows.length)}</strong> × ${stage}: ${words(type)} <small class="clamped">${rows[0].failure.detail}</small>`}>
      <ul>${rows.slice(0, 20).map((row, index) => html`<li key=${index}>
        ${row.key === null ? html`<code>${row.shard}</code>` : html`<a href=${href(["records", job.id, row.key], { uri: row.shard })}>${row.key}</a>`}
        ${" "}${row.failure.detail}${row.failure.transient && html` <${Chip} kind="warn">may pass<//>`}</li>`)}</ul>
      ${rows.length > 20 && html`<p class="hint">and ${count(rows.length - 20)} more</p>`}
    <//>`)}`;
}

async function failuresOf(id, show, signal) {
  let path = `v1/jobs/${encodeURIComponent(id)}/failures?limit=500${show === "filtered" ? "&status=filtered" : ""}`;
  const rows = [];
  let before = null;
  // while a job runs, the last page has a next one that is the same
  while (path && path !== before && rows.length < MOST_FAILURES) {
    const page = await lines(path, {}, { signal });
    rows.push(...page.rows);
    before = path;
    path = page.rows.length ? page.next : null;
  }
  return { rows, more: rows.length >= MOST_FAILURES && path !== null };
}

/** Rows by stage and type of error, the most frequent first. */
function groupsOf(rows) {
  const groups = new Map();
  for (const row of rows) {
    const { stage, error_type: type } = row.failure;
    const name = `${stage} ${type}`;
    if (!groups.has(name)) groups.set(name, { stage, type, rows: [] });
    groups.get(name).rows.push(row);
  }
  return [...groups.values()].sort((a, b) => b.rows.length - a.rows.length);
}
