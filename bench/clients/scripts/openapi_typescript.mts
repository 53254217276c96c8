// The types of openapi-typescript, with openapi-fetch. Arguments: the service's address, an image, a shard; prints what
// it got. The compiler checks every address, body and field.
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./strata.js";

type Schemas = components["schemas"];
const FINAL: string[] = ["completed", "failed", "cancelled"];
const [url, image, shard] = process.argv.slice(2) as [string, string, string];
const client = createClient<paths>({ baseUrl: url });

const body: Schemas["CaptionBody"] = { image_base64: readFileSync(image).toString("base64url") };
const described = await client.POST("/v1/captions", { body, params: { header: { prefer: "wait=60" } } });
if (described.error) throw new Error(described.error.detail);
if (!described.data || !("key" in described.data)) throw new Error("no record");
const record = described.data;

const sent = await client.POST("/v1/batches", { body: { input: { shards: [shard] } } });
if (sent.error) throw new Error(sent.error.detail);
let job: Schemas["JobView"] = sent.data;
while (!FINAL.includes(job.status)) {
  await new Promise((go) => setTimeout(go, 100));
  const shown = await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: job.id } } });
  if (shown.error) throw new Error(shown.error.detail);
  job = shown.data;
}

const path = { job_id: job.id };
const failures = await client.GET("/v1/jobs/{job_id}/failures", { params: { path }, parseAs: "text" });
const lines = String(failures.data).split("\n").filter(Boolean);
const rows = lines.map((line): Schemas["FailureRow"] => JSON.parse(line));
const unknown = await client.GET("/v1/jobs/{job_id}", { params: { path: { job_id: "none" } } });
console.log(JSON.stringify({
  description: record.description?.text,
  status: job.status,
  counts: [job.request_counts.succeeded, job.request_counts.failed],
  failures: rows.map((row) => [row.key, row.failure.error_type]),
  problem: unknown.error?.type,
}));
