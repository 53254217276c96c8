// One record of a job, with its evidence: #/records/JOB/KEY?uri=OF_ITS_SHARD_OR_IMAGE
import { html } from "../html.js";
import { get, recordPath } from "../api.js";
import { EvidenceView } from "../evidence.js";
import { Busy, Fault } from "../parts.js";
import { href } from "../router.js";
import { useLoaded, useTitle } from "../use.js";

export function RecordPage({ parts: [job, key], query }) {
  useTitle(key);
  const { value, error, reload } = useLoaded((signal) => get(recordPath(job, key), { uri: query.uri }, { signal }), [job, key, query.uri]);
  return html`<h1>${key}</h1>
    <p class="trail"><a href=${href(["job", job])}>job ${job}</a>${value?.profile && html` · profile ${value.profile}`}</p>
    <${Fault} error=${error} retry=${reload} />
    ${!value && !error && html`<${Busy}>Loading the record<//>`}
    ${value && html`<h2 class="visually-hidden">Evidence</h2><${EvidenceView} record=${value} job=${job} text=${query.text} />`}`;
}
