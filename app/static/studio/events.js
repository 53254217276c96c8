// Server-sent events by `fetch`, because EventSource does not tell why it was refused.
import { request } from "./api.js";

const PAUSE_MS = 1000; // before the first reconnection; it doubles up to MOST_PAUSE_MS
const MOST_PAUSE_MS = 15000;

/** Call onEvent(name, data) for each event of a path, with its data as JSON, until the signal aborts or onEvent returns
 * true. A lost connection is made again after the last event. Rejects with the ApiError of a refusal that stays. */
export async function follow(path, onEvent, signal) {
  let last = "";
  let pause = PAUSE_MS;
  while (!signal.aborted) {
    try {
      const response = await request(path, { signal, headers: last ? { "Last-Event-ID": last } : {} });
      for await (const event of eventsOf(response.body)) {
        pause = PAUSE_MS;
        if (event.id) last = event.id;
        if (onEvent(event.name, JSON.parse(event.data))) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // 4xx other than "too many" will not change
      if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(pause * 2, MOST_PAUSE_MS);
  }
}

/** The events of a body: name, data and id, as the standard parses them. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r\n\r\n|\n\n|\r\r/);
      rest = blocks.pop();
      for (const block of blocks) {
        const event = eventOf(block);
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function eventOf(block) {
  const event = { name: "message", data: "", id: "" };
  for (const line of block.split(/\r\n|\n|\r/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "event") event.name = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data += (event.data ? "\n" : "") + value;
  }
  return event;
}
