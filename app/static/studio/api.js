// Requests to the service: below whatever path it is served, by the session, and with errors that people can read.

/** The root of the service: this module lies in static/studio. */
export const ROOT = new URL("../../", import.meta.url);
const SESSION = "v1/session";
const KEPT_PICTURES = 200;

/** The statuses of jobs that have ended. */
export const ENDED = ["completed", "failed", "cancelled"];

/** A refusal of the service, or that it does not answer (status 0). message: for people. type: of the problem. */
export class ApiError extends Error {
  constructor(message, status, problem = null) {
    super(message);
    this.status = status;
    this.problem = problem;
    this.type = problem?.type?.replace(/^\/problems\//, "") ?? "";
  }
}

/** The address of a path such as "v1/jobs", with a query; parts that are null or "" are left out. */
export function address(path, query = {}) {
  const url = new URL(path.replace(/^\/+/, ""), ROOT);
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
    }
  }
  return url;
}

/** The response to a request. Throws ApiError. options: those of `fetch`, and `query`. If the session has ended, the
 * person is asked to sign in, and the request is sent again then: no page loses what was typed into it. */
export async function request(path, options = {}) {
  for (let renewed = false; ; ) {
    const response = await send(path, options);
    if (response.ok) return response;
    const error = await refusal(response);
    if (error.status === 401 && path !== SESSION) await signedIn(options.signal);
    else if (error.type === "wrong-csrf-token" && !renewed) {
      await loadSession(); // another tab has signed in anew
      renewed = true;
    } else throw error;
  }
}

async function send(path, { query, headers, ...options }) {
  const token = session?.csrf_token;
  try {
    return await fetch(address(path, query), { ...options, headers: { ...(token && { "X-CSRF-Token": token }), ...headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service does not answer. Check that it runs and that you are connected.", 0);
  }
}

/** Ask for a sign-in, and wait until there was one. */
function signedIn(signal) {
  return new Promise((done, fail) => {
    window.addEventListener("strata:signed-in", done, { once: true });
    signal?.addEventListener("abort", () => fail(new DOMException("aborted", "AbortError")), { once: true });
    window.dispatchEvent(new Event("strata:unauthorized"));
  });
}

/** @type {import("./types.js").SessionView|null} as whom the service knows this browser; null until it was asked */
let session = null;

/** Ask the service as whom it knows this browser. The key of the session is in a cookie that no script can read. */
export async function loadSession() {
  session = await get(SESSION);
  return session;
}

/** Sign in with a key. Throws ApiError if it is refused. What waits for a sign-in goes on, unless another key came. */
export async function signIn(key) {
  const before = session?.key;
  session = await post(SESSION, { key });
  if (before && before !== session.key) location.reload(); // nothing of what is shown need exist for this key
  else window.dispatchEvent(new Event("strata:signed-in"));
  return session;
}

/** Sign out. The page is loaded anew, so that it keeps nothing of what it has shown. */
export async function signOut() {
  await request(SESSION, { method: "DELETE" });
  location.reload();
}

async function refusal(response) {
  const problem = await response.json().catch(() => null);
  const known = problem && typeof problem.detail === "string";
  const message = known ? `${problem.title}: ${problem.detail}` : `The service answered ${response.status}.`;
  const pause = response.headers.get("Retry-After");
  return new ApiError(pause ? `${message} (again in ${pause} s)` : message, response.status, known ? problem : null);
}

/** The JSON of a GET. */
export const get = async (path, query = {}, options = {}) => (await request(path, { query, ...options })).json();

/** The JSON of a POST; body: an object that is sent as JSON, FormData, or nothing. */
export async function post(path, body, { headers, ...options } = {}) {
  const isForm = body instanceof FormData;
  const response = await request(path, {
    method: "POST",
    body: body === undefined || isForm ? body : JSON.stringify(body),
    headers: { ...(body === undefined || isForm ? {} : { "Content-Type": "application/json" }), ...headers },
    ...options,
  });
  return response.status === 204 ? null : response.json();
}

/** An address of the service as a path below ROOT: it has the prefix of a proxy only if the service knows it. */
const below = (link) => (link.startsWith(ROOT.pathname) ? link.slice(ROOT.pathname.length) : link);

/** A page of JSON Lines: its rows, and the path of the next page or null. */
export async function lines(path, query = {}, options = {}) {
  const response = await request(path, { query, ...options });
  const rows = (await response.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
  const next = /<([^>]*)>;\s*rel="next"/.exec(response.headers.get("Link") ?? "");
  return { rows, next: next ? below(next[1]) : null };
}

/** The path of a record, of its image, or of its preview. */
export const recordPath = (job, key, file = "") =>
  `v1/records/${encodeURIComponent(job)}/${encodeURIComponent(key)}${file && `/${file}`}`;
/** The path of a record's picture as JPEG, upright, with at most so many pixels on its longer side. identity: of its
 * shard, uri: of its image, as several shards of the job may have the key. */
export function previewPath(job, key, side = 1600, identity = "", uri = "") {
  const query = new URLSearchParams({ side, ...(identity && { identity }), ...(uri && { uri }) });
  return `${recordPath(job, key, "preview.jpg")}?${query}`;
}

/** @type {Map<string, Promise<string>>} addresses of pictures that were loaded, the newest last */
const pictures = new Map();

/** The blob address of a picture of the service, which several elements can show. The last KEPT_PICTURES are kept. */
export function picture(path) {
  let found = pictures.get(path);
  if (found) pictures.delete(path);
  else {
    found = request(path).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob));
    found.catch(() => pictures.delete(path));
  }
  pictures.set(path, found);
  for (const [old, url] of pictures) {
    if (pictures.size <= KEPT_PICTURES) break;
    pictures.delete(old);
    url.then(URL.revokeObjectURL, () => {});
  }
  return found;
}
