// One job: #/job/ID
import { html, useEffect, useState } from "../html.js";
import { Fault } from "../parts.js";
import { follow } from "../events.js";
import { StatusChip, doneOf } from "./jobs.js";
import { count, duration, rate } from "../text.js";
import { useTitle } from "../use.js";

export function JobDetail({ parts: [id] }) {
  useTitle(`Job ${id}`);
  const [job, set] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const control = new AbortController();
    follow(`v1/jobs/${encodeURIComponent(id)}/events`, (name, data) => {
      if (name !== "layer") set((old) => ({ ...old, ...data }));
      return ["completed", "failed", "cancelled"].includes(data.status);
    }, control.signal).catch(setError);
    return () => control.abort();
  }, [id]);
  return html`<h1>Job <code>${id}</code></h1><${Fault} error=${error} />
    ${job && html`<p><${StatusChip} job=${job} /> ${count(doneOf(job))} / ${count(job.request_counts.total)} images,
      ${rate(job.images_per_second)}, remaining ${duration(job.eta_seconds)}</p>`}`;
}
