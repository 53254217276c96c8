// Judgments that the service does not have yet. They lie in the browser's storage, each under its own name, so that
// neither a reload nor a second tab loses one; sent twice, they are stored once.
import { ApiError, post } from "../api.js";

const PREFIX = "strata.unsent.";
const AT_ONCE = 50;

/** A new id: later ones sort after earlier ones. */
export function newId() {
  const random = crypto.getRandomValues(new Uint32Array(2));
  return `${Date.now().toString(36).padStart(9, "0")}-${[...random].map((one) => one.toString(36).padStart(7, "0")).join("")}`;
}

/** Keep a judgment until it is sent. */
export const keep = (judgment) => localStorage.setItem(PREFIX + judgment.id, JSON.stringify(judgment));

/** Give a judgment up, because the service has it or will never take it. */
export const forget = (id) => localStorage.removeItem(PREFIX + id);

/** All judgments that are kept, in the order in which they were made. */
export function unsent() {
  const names = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX)).sort();
  return names.map((name) => JSON.parse(localStorage.getItem(name)));
}

/** Send what is kept. Throws ApiError; one with `refused`, the judgments of which the service takes none. */
export async function send() {
  for (let rest = unsent(); rest.length; rest = unsent()) {
    const batch = rest.slice(0, AT_ONCE);
    try {
      await post("v1/judgments", { judgments: batch }, { keepalive: true }); // also if the tab is closed now
    } catch (error) {
      // what is wrong with one is found by sending each alone
      if (error instanceof ApiError && [404, 410, 422].includes(error.status)) await sendEach(batch);
      else throw error;
    }
    batch.forEach(({ id }) => forget(id));
  }
}

async function sendEach(batch) {
  const refused = [];
  let reason = null;
  for (const judgment of batch) {
    try {
      await post("v1/judgments", { judgments: [judgment] });
      forget(judgment.id);
    } catch (error) {
      if (!(error instanceof ApiError) || ![404, 410, 422].includes(error.status)) throw error;
      refused.push(judgment);
      reason = error;
    }
  }
  if (refused.length) throw Object.assign(reason, { refused });
}
