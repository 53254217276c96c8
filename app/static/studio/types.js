// The types of the API that the studio uses, in one place. `docs` of the service describes all of them.
// A test compares these names with those of the models (tests/studio/test_types.py).

/** One observation with its scores: why it was dropped is `reason`; null where nothing judged it.
 * @typedef {{score: number|null, match: number|null, kept: boolean, reason: string|null}} Evidence */
/** x1, y1, x2, y2 in pixels of the upright image
 * @typedef {[number, number, number, number]} Box */
/** COCO compressed run-length encoding; size is height, width
 * @typedef {{size: [number, number], counts: string}} Mask */
/** @typedef {Evidence & {text: string}} Caption */
/** @typedef {Evidence & {box: Box, phrase: string}} Region */
/** @typedef {Evidence & {box: Box, mask: Mask, area: number, phrase: string|null}} ObjectMask */
/** @typedef {Evidence & {box: Box, text: string}} TextLine */
/** @typedef {Evidence & {word: string}} Tag */
/** evidence names entries of layers: "caption", "regions/0", "text/1"
 * @typedef {{text: string, evidence: string[]}} Sentence */
/** @typedef {{text: string, sentences: Sentence[]}} Description */

/** @typedef {{kind: string, text: string, supported: boolean|null, reason: string|null, evidence: string[],
 *   score: number|null}} Claim */
/** kept: what remains of the sentence; null if it was cut
 * @typedef {{text: string, kept: string|null, reason: string|null, claims: Claim[]}} CheckedSentence */
/** text: as it was composed; origin: "composed", "composed_again" or "layers"
 * @typedef {{text: string, sentences: CheckedSentence[], origin: string}} Verification */
/** @typedef {{question: string, answer: string, evidence: string[]}} Turn */
/** What texts a request wants; null: as the profile has it.
 * @typedef {{variants: string[]|null, language: string|null, prompt: string|null}} TextFields */
/** @typedef {{name: string, language: string, text: string, sentences: Sentence[], turns: Turn[],
 *   verification: Verification|null}} Variant */

/** @typedef {{stage: string, error_type: string, detail: string, transient: boolean}} FailureNote */
/** @typedef {{type: string, detail: string}} RowWarning */
/** One image with its layers: a layer is null where it was not computed, an empty list if nothing was found.
 * @typedef {{schema_version: number, key: string, image: {uri: string, offset: number, size: number, sha256: string|null},
 *   width: number|null, height: number|null, status: "succeeded"|"filtered"|"failed", failure: FailureNote|null,
 *   warnings: RowWarning[], alt_text: string|null, caption: Caption|null, regions: Region[]|null,
 *   objects: ObjectMask[]|null, text: TextLine[]|null, tags: Tag[]|null, description: Description|null,
 *   profile: string|null, fingerprint: string|null, seconds: Object<string, number>, usage: Object<string, object>,
 *   verification: Verification|null, variants: Variant[]|null}} Record */

/** @typedef {{total: number, queued: number, processing: number, succeeded: number, filtered: number, failed: number,
 *   cancelled: number}} RequestCounts */
/** @typedef {{total: number, indexed: number, failed: number, left_out: Object<string, number>}} ShardCounts */
/** @typedef {{images: number, chunks: number, reused: number}} GroupProgress */
/** @typedef {{prompt_tokens: number, completion_tokens: number, requests: number, money: number|null,
 *   reserved_tokens: number, reserved_money: number|null}} JobUsage */
/** @typedef {{stage: string, reason: string, since: string, attempts: number}} Waiting */
/** @typedef {{id: string, kind: "image"|"batch", status: string, profile: string, priority: "hi"|"lo",
 *   metadata: Object<string, string>, request_counts: RequestCounts, shards: ShardCounts,
 *   groups: Object<string, GroupProgress>, usage: JobUsage|null, budget: {tokens: number|null, money: number|null}|null,
 *   images_per_second: number|null, eta_seconds: number|null, created_at: string, started_at: string|null,
 *   finished_at: string|null, error: string|null, waiting: Waiting|null, links: Object<string, string>,
 *   tenant: string, chosen: ChosenRows|null,
 *   sample: {images: number, seed: number, drawn: boolean}|null}} JobView */
/** Which rows of jobs, snapshots and data sets a job describes once more; where: null for all that succeeded
 * @typedef {{sources: string[], where: string|null}} ChosenRows */
/** What a job would compute; null where it is not known.
 * @typedef {{shards: number, looked_at: number, images: number|null, reused: number|null, failed: number|null,
 *   unread: {shard: string, reason: string}[], seconds: number|null, money: number|null, like: string|null,
 *   first: string[]}} BatchPreview */
/** A figure of all images with its interval of 95 %; null if the sample is too small for one.
 * @typedef {{value: number, low: number|null, high: number|null}} Figure */
/** @typedef {{images: Figure, measured: number, images_per_second: Figure|null, hours: Figure|null, device: string|null,
 *   workers: number|null, loading_seconds: number|null, prompt_tokens: Figure|null, completion_tokens: Figure|null,
 *   money: Figure|null}} GroupEstimate */
/** What all images would take, by a sample; null until the shards are indexed, or where it is not known.
 * @typedef {{job: string, status: string, profile: string, seed: number, sampled: number, described: number,
 *   shards: number|null, unread: number|null, images: number|null, to_compute: number|null,
 *   groups: Object<string, GroupEstimate>, seconds: Figure|null, gpu_hours: Figure|null, cpu_hours: Figure|null,
 *   prompt_tokens: Figure|null, completion_tokens: Figure|null, money: Figure|null, succeeded: Figure|null,
 *   filtered: Figure|null, failed: Figure|null, store_bytes: Figure|null, notes: string[],
 *   reasons: {status: string, stage: string, error_type: string, images: Figure}[]}} Estimate */
/** @typedef {{jobs: JobView[], next: string|null}} JobPage */
/** a shard (key null) or one of its images, and why it failed or which rule rejected it
 * @typedef {{shard: string, key: string|null, failure: FailureNote}} FailureRow */
/** As whom the service knows this browser. state: "open" (no key is needed), "signed_in", "key" (a proxy sends one) or
 * "signed_out"; name: of the key
 * @typedef {{state: string, key: string|null, name: string|null, tenant: string|null, scopes: string[],
 *   expires_at: string|null, csrf_token: string|null, reason: string|null}} SessionView */
/** RFC 9457
 * @typedef {{type: string, title: string, status: number, detail: string, errors: object[]|null}} Problem */
/** @typedef {{stage: string, group: string, backend: string, model: string, revision: string}} StageView */
/** @typedef {{name: string, summary: string, needs: string, default: boolean, stages: StageView[], layers: string[],
 *   texts: TextFields, warnings: string[], faults: string[]}} ProfileView */

/** verdict: "accepted", "rejected" or "edited"; text: the sentence that was judged, edited: as the reviewer wrote it
 * @typedef {{index: number, verdict: string, reason: string|null, edited: string|null, text: string}} JudgedSentence */
/** What one person said of one record. verdict: "accepted", "rejected", "edited" or "undone"; supersedes: the id of the
 * reviewer's earlier judgment of the record; text: the whole description as it was edited
 * @typedef {{id: string, reviewer: string, verdict: string, reason: string|null, comment: string|null,
 *   sentences: JudgedSentence[], supersedes: string|null, at: string, job: string, fingerprint: string,
 *   identity: string, key: string, text: string|null}} Judgment */
/** Why a record is doubtful; all are from 0 to 1
 * @typedef {{score: number, cut: number, unsupported: number, lowest_match: number}} Doubt */
/** @typedef {{job: string, identity: string, key: string, fingerprint: string, record: Record, doubt: Doubt,
 *   judgment: Judgment|null}} ReviewItem */
/** @typedef {{reviewers: [string, string], records: number, equal: number, alpha: number|null}} PairAgreement */
/** @typedef {{job: string, fingerprint: string, identity: string, key: string,
 *   verdicts: Object<string, string>}} Disagreement */
/** @typedef {{reviewers: Object<string, number>, records: number, alpha: number|null, passes_alpha: number|null,
 *   sentence_alpha: number|null, pairs: PairAgreement[], disagreements: Disagreement[]}} Agreement */
/** A part of a queue of records to be judged; agreement: null until the reviewer has judged all of them
 * @typedef {{items: ReviewItem[], start: number, total: number, done: number, passed: number, considered: number,
 *   parts: number, parts_read: number, left_out: number, next: number|null, resume: number|null,
 *   agreement: Agreement|null, faults: string[]}} ReviewPage */

/** A row that a search has found; id: its place in the store, for v1/rows/ID
 * @typedef {{id: string, key: string, status: "succeeded"|"filtered"|"failed", title: string|null, words: number,
 *   score: number|null, has_text: boolean, width: number|null, height: number|null}} SearchHit */
/** @typedef {{rows: SearchHit[], total: number, next: string|null, indexed: number, waiting: number, broken: string[],
 *   note: string|null, hints: string[]}} SearchPage */
/** value: of a histogram the least one of the bar
 * @typedef {{value: string, count: number}} FacetValue */
/** @typedef {{total: number, status: FacetValue[], has_text: FacetValue[], words: FacetValue[], score: FacetValue[],
 *   thing: FacetValue[], tag: FacetValue[], dropped: FacetValue[], cut: FacetValue[], failure: FacetValue[]}} Facets */

/** A layer of the table `strata.core.layers`, which the service writes into the page. form: "text", "entry",
 * "entries" or "sentences"; words: the field with an entry's words; stage: what computes it.
 * @typedef {{name: string, title: string, entry: string, form: string, words: string, quoted: boolean, boxed: boolean,
 *   stage: string|null}} Layer */

export {};
