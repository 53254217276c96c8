// A sample of a submission's images that is tried first, and what all of them would take by it.
import { html, useEffect, useState } from "../html.js";
import { ENDED, get, isPassing, post } from "../api.js";
import { Busy, Fault, Lost } from "../parts.js";
import { href } from "../router.js";
import { bytes, count, counted, duration, some, words } from "../text.js";

const IMAGES = 200; // of a sample
const PAUSE = 2000; // milliseconds between two looks at an estimate

/** The offer to try images of a submission, and the estimate as it comes. body: the request for the job. */
export function Trial({ body }) {
  const [state, set] = useState({ job: null, estimate: null, error: null, isBusy: false, isLost: false });
  const { job, estimate, error, isBusy } = state;
  const isOver = estimate !== null && ENDED.includes(estimate.status);
  useEffect(() => {
    if (!job) return undefined;
    const control = new AbortController();
    follow(job, control.signal, (news) => set((old) => ({ ...old, ...news })));
    return () => control.abort();
  }, [job]);
  const begin = async () => {
    set((old) => ({ ...old, isBusy: true, error: null }));
    try {
      const made = await post("v1/batches/estimate", { ...body, images: IMAGES });
      set({ job: made.id, estimate: null, error: null, isBusy: false, isLost: false });
    } catch (fault) {
      set((old) => ({ ...old, isBusy: false, error: fault }));
    }
  };
  const cancel = () => post(`v1/jobs/${job}/cancel`).catch((fault) => set((old) => ({ ...old, error: fault })));
  return html`<div class="trial">
    ${!job && html`<p class="row"><button type="button" disabled=${isBusy} onClick=${begin}>Try ${IMAGES} images first</button>
      <span class="hint">Random images ${body.input.sources ? "of the chosen rows" : "of all shards"} are described; they tell what all would take.</span></p>`}
    ${job && !isOver && html`<${Busy}>${progress(estimate)}<//>
      <p class="row"><button type="button" onClick=${cancel}>Stop the trial</button></p>`}
    <${Lost} isLost=${state.isLost} />
    <${Fault} error=${error} />
    ${estimate && estimate.images !== null && html`<${Figures} found=${estimate} />`}
    ${isOver && html`<p class="row"><button type="button" onClick=${begin}>Try again</button></p>`}
  </div>`;
}

/** Look at a job's estimate until the job has ended. */
async function follow(job, signal, tell) {
  while (!signal.aborted) {
    try {
      const estimate = await get(`v1/jobs/${job}/estimate`, {}, { signal });
      tell({ estimate, isLost: false });
      if (ENDED.includes(estimate.status)) return;
    } catch (error) {
      if (signal.aborted) return;
      if (!isPassing(error)) {
        tell({ error });
        return;
      }
      tell({ isLost: true });
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

function progress(estimate) {
  if (!estimate || estimate.images === null) return "All shards are indexed, so that each image has the same chance";
  return `${count(estimate.described)} of ${counted(estimate.sampled, "image")} described`;
}

/** @param {{found: import("../types.js").Estimate}} given */
function Figures({ found }) {
  const groups = Object.entries(found.groups);
  const ready = groups.map(([name, one]) => `${one.workers ?? "?"} ${name}`).join(", ");
  const rows = [
    ["time", found.seconds, duration, `with ready workers: ${ready}`],
    ["GPU hours", found.gpu_hours, some, ""],
    ["CPU worker hours", found.cpu_hours, some, ""],
    ["tokens read", found.prompt_tokens, some, ""],
    ["tokens written", found.completion_tokens, some, ""],
    ["money", found.money, some, ""],
    ["store", found.store_bytes, bytes, ""],
    ...groups.map(([name, one]) => [`${name}: images/s of one worker`, one.images_per_second, some, device(one)]),
    ["succeeded", found.succeeded, some, ""],
    ["filtered", found.filtered, some, ""],
    ["failed", found.failed, some, ""],
    ...found.reasons.map((one) => [`${one.status}: ${one.stage}: ${words(one.error_type)}`, one.images, some, ""]),
  ].filter(([, figure]) => figure);
  return html`<section aria-label="Estimate" class="estimate">
    <p>${count(found.to_compute)} of ${counted(found.images, "image")} are to be described. By
      ${" "}${counted(found.described, "random image")} of <a href=${href(["job", found.job])}>job ${found.job}</a>:</p>
    ${rows.length > 0 && html`<table class="table"><thead><tr><th>all images</th><th class="number">estimate</th>
        <th class="number">95 %</th><th>by</th></tr></thead>
      <tbody>${rows.map(([name, figure, form, note]) => html`<tr key=${name}><td data-label="all images">${name}</td>
        <td class="number" data-label="estimate">${form(figure.value)}</td>
        <td class="number" data-label="95 %">${figure.low !== null && figure.high !== null && `${form(figure.low)} to ${form(figure.high)}`}</td>
        <td data-label="by">${note}</td></tr>`)}</tbody></table>`}
    ${found.notes.map((one) => html`<p class="hint" key=${one}>${one[0].toUpperCase() + one.slice(1)}.</p>`)}
  </section>`;
}

function device(group) {
  const loading = group.loading_seconds === null ? "" : `; its models load in ${duration(group.loading_seconds)}`;
  return `${group.device ?? ""}${loading}`;
}
