// Submit a job, after a preview of what it would compute: #/jobs/new, and for rows of another job #/jobs/new?from=JOB
import { html, useState } from "../html.js";
import { get, post } from "../api.js";
import { Busy, Fault } from "../parts.js";
import { Trial } from "./estimate.js";
import { go, href } from "../router.js";
import { count, counted, duration } from "../text.js";
import { NO_TEXTS, TextFields, textsOf } from "../texts.js";
import { useLoaded, useTitle } from "../use.js";

export function Submit({ query }) {
  useTitle("Submit a job");
  const { value: profiles, error: noProfiles } = useLoaded(async (signal) => (await get("v1/profiles", {}, { signal })).profiles, []);
  const [given, set] = useState({ kind: query.from ? "sources" : "shards", shards: "", sources: query.from ?? "", where: "", profile: "", priority: "lo", tokens: "", money: "", ...NO_TEXTS });
  const [state, setState] = useState({ busy: "", error: null, preview: null, of: "" });
  const change = (name) => (event) => set((old) => ({ ...old, [name]: event.target.value }));
  const body = bodyOf(given);
  const wanted = JSON.stringify(body);
  // a preview of what was changed since is none
  const preview = state.of === wanted ? state.preview : null;
  const ask = async (busy, act) => {
    setState((old) => ({ ...old, busy, error: null }));
    try {
      await act();
    } catch (error) {
      setState((old) => ({ ...old, busy: "", error }));
    }
  };
  const look = (event) => {
    event.preventDefault();
    ask("Looking at the shards", async () => {
      const found = await post("v1/batches/preview", body);
      setState({ busy: "", error: null, preview: found, of: wanted });
    });
  };
  const submit = () => ask("Submitting", async () => {
    const job = await post("v1/batches", body);
    go(href(["job", job.id]));
  });
  const usable = (profiles ?? []).filter((one) => !one.faults.length);
  return html`<h1>Submit a job</h1>
    <form onSubmit=${look}>
      <label class="field">What is described <select value=${given.kind} onChange=${change("kind")}>
        <option value="shards">images of shards</option><option value="sources">images of other jobs or snapshots, once more</option></select></label>
      <${given.kind === "shards" ? Shards : Sources} given=${given} change=${change} />
      <div class="fields">
        <label class="field">Profile <select value=${given.profile} onChange=${change("profile")}>
          <option value="">default of the service</option>
          ${usable.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}${one.default ? " (default)" : ""}</option>`)}
        </select></label>
        <label class="field">Priority <select value=${given.priority} onChange=${change("priority")}>
          <option value="lo">low</option><option value="hi">high</option></select></label>
        <label class="field">Most tokens <input type="number" min="1" step="1" value=${given.tokens} placeholder="no limit" onInput=${change("tokens")} /></label>
        <label class="field">Most money <input type="number" min="0" step="any" value=${given.money} placeholder="no limit" onInput=${change("money")} /></label>
      </div>
      <${TextFields} given=${given} profile=${usable.find((one) => given.profile ? one.name === given.profile : one.default)} change=${(part) => set((old) => ({ ...old, ...part }))} />
      <p class="row"><button type="submit" class=${preview ? "" : "primary"} disabled=${state.busy !== ""}>Preview</button>
        <button type="button" class=${preview ? "primary" : ""} disabled=${state.busy !== "" || !Object.values(body.input)[0].length} onClick=${submit}>Submit the job</button></p>
    </form>
    ${state.busy && html`<${Busy}>${state.busy}<//>`}
    <${Fault} error=${state.error ?? noProfiles} />
    ${preview && html`<${Preview} found=${preview}><${Trial} key=${wanted} body=${body} /><//>`}`;
}

const Shards = ({ given, change }) => html`
  <label class="field">Shards, one a line <textarea required rows="4" spellcheck=${false} value=${given.shards} onInput=${change("shards")}></textarea></label>
  <p class="hint">Paths on the server or URIs: a tar, a folder of images, a list (.jsonl, .parquet). <code>${"{00000..00331}"}</code> is a range, <code>*</code> stands for files that exist.</p>`;

const Sources = ({ given, change }) => html`
  <label class="field">Jobs or snapshots, one a line <textarea required rows="2" spellcheck=${false} value=${given.sources} onInput=${change("sources")}></textarea></label>
  <label class="field">Which of their rows <input maxlength="10000" spellcheck=${false} placeholder="match < 0.5" value=${given.where} onInput=${change("where")} /></label>
  <p class="hint">Keys, images and texts beside them stay the same. Empty: all rows that succeeded. <code>status == 'failed'</code> describes again what failed. <code>strata snapshot features</code> lists what a filter may name.</p>`;

const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** The request for a job. */
function bodyOf({ kind, shards, sources, where, profile, priority, tokens, money, ...texts }) {
  const budget = { ...(tokens && { tokens: Number(tokens) }), ...(money && { money: Number(money) }) };
  return {
    input: kind === "shards" ? { shards: linesOf(shards) } : { sources: linesOf(sources), ...(where.trim() && { where: where.trim() }) },
    priority,
    ...(profile && { profile }),
    ...textsOf(texts),
    ...(Object.keys(budget).length && { budget }),
  };
}

/** @param {{found: import("../types.js").BatchPreview, children?: any}} given */
function Preview({ found, children }) {
  const isExact = found.looked_at === found.shards;
  const about = isExact ? "" : "about ";
  return html`<section aria-label="Preview" class="preview"><h2>Preview</h2>
    <dl class="facts">
      <div><dt>shards</dt><dd>${count(found.shards)}${!isExact && html` <small>${count(found.looked_at)} looked at</small>`}</dd></div>
      <div><dt>images</dt><dd>${found.images === null ? "unknown" : about + count(found.images)}</dd></div>
      <div><dt>results that exist</dt><dd>${found.reused === null ? "unknown" : about + count(found.reused)}${found.failed ? html` <small>${about}${count(found.failed)} of which failed</small>` : ""}</dd></div>
      <div><dt>time</dt><dd>${found.seconds === null ? "unknown" : `about ${duration(found.seconds)}`}</dd></div>
      <div><dt>money</dt><dd>${found.money === null ? "unknown" : `about ${found.money.toPrecision(3)}`}</dd></div>
    </dl>
    ${found.like ? html`<p class="hint">Time and money are those of <a href=${href(["job", found.like])}>job ${found.like}</a> for as many images.</p>`
      : html`<p class="hint">The time is not known before a job of this profile with 32 images or more has ended.</p>`}
    ${found.unread.length > 0 && html`<div class="warning"><p>${counted(found.unread.length, "shard")} cannot be read:</p>
      <ul>${found.unread.map((one) => html`<li key=${one.shard}>${one.reason}</li>`)}</ul></div>`}
    ${children}
  </section>`;
}
