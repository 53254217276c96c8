// The beginning of a review: who reviews, and which records.
import { html, useState } from "../html.js";
import { get } from "../api.js";
import { Fault } from "../parts.js";
import { useLoaded } from "../use.js";
import { count, words } from "../text.js";

export function Start({ queue, reviewer, begin }) {
  const { value, error } = useLoaded((signal) => get("v1/jobs", { limit: 50 }, { signal }), []);
  const [source, setSource] = useState(queue.snapshot ? "snapshot" : "job");
  const jobs = (value?.jobs ?? []).filter((job) => job.request_counts.succeeded > 0);
  const submit = (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    const { name, place, ...more } = given;
    if (name.trim() && place.trim()) begin(name.trim(), { [source]: place.trim(), ...more });
  };
  return html`<p>Judge one record after another: accept, reject or edit its description. Everything works by keyboard;${" "}
      <kbd>?</kbd> shows the keys. Two people who review the same queue do not see what the other one says until they
      have judged all of it.</p>
    <${Fault} error=${error} />
    <form class="review-start" onSubmit=${submit}>
      <div class="fields">
        <label class="field">Your name <input name="name" required maxlength="100" defaultValue=${reviewer} autocomplete="name" /></label>
        <label class="field">Records of <select value=${source} onChange=${(event) => setSource(event.target.value)}>
          <option value="job">a job</option><option value="snapshot">a snapshot</option></select></label>
        <label class="field">${source === "job" ? "Job" : "Snapshot"}
          <input key=${source} name="place" required maxlength="100" list=${source === "job" ? "review-jobs" : undefined}
            defaultValue=${queue[source] ?? (source === "job" ? jobs[0]?.id : "") ?? ""} /></label>
        <datalist id="review-jobs">${jobs.map((job) => html`<option key=${job.id} value=${job.id}>${job.profile}, ${count(job.request_counts.succeeded)} described, ${words(job.status)}</option>`)}</datalist>
        <label class="field">Order <select name="order">
          <option value="random">a random sample</option><option value="doubtful" selected=${queue.order === "doubtful"}>the most doubtful first</option></select></label>
        <label class="field">Records <input name="sample" type="number" min="1" max="5000" required defaultValue=${queue.sample ?? 200} /></label>
        <label class="field">Seed <input name="seed" type="number" min="0" max="9007199254740991" required defaultValue=${queue.seed ?? 1} /></label>
        <label class="field">Filter (all, if empty) <input name="where" maxlength="1000" placeholder="objects >= 2 and text" defaultValue=${queue.where ?? ""} /></label>
      </div>
      <button class="primary">Begin</button>
    </form>`;
}
