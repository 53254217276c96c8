// Requests to the service: below whatever path it is served, with the API key, and with errors that people can read.

/** The root of the service: this module lies in static/studio. */
export const ROOT = new URL("../../", import.meta.url);
const KEY = "strata.key"; // in the storage of this tab: it is forgotten when the tab is closed
const KEPT_PICTURES = 200;

/** The statuses of jobs that have ended. */
export const ENDED = ["completed", "failed", "cancelled"];

/** The API key that the person gave; "" if none. */
export const apiKey = () => sessionStorage.getItem(KEY) ?? "";
export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  window.dispatchEvent(new Event("strata:key"));
}

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

/** The response to a request. Throws ApiError. options: those of `fetch`, and `query`. */
export async function request(path, { query, headers, ...options } = {}) {
  const key = apiKey();
  let response;
  try {
    const all = { ...(key ? { "X-API-Key": key } : {}), ...headers };
    response = await fetch(address(path, query), { ...options, headers: all });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service does not answer. Check that it runs and that you are connected.", 0);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const problem = await response.json().catch(() => null);
  if (response.status === 401) window.dispatchEvent(new Event("strata:unauthorized"));
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

/** The blob address of a picture of the service: an <img> cannot send the API key. The last KEPT_PICTURES are kept. */
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
