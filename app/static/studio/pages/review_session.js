// The state of one review: the queue's records, what the reviewer has said of them, and where the reviewer stands.
// Judgments are kept in the browser first (unsent.js) and sent at once; the place and what can be undone outlive a reload.
import { useEffect, useMemo, useRef, useState } from "../html.js";
import { get, picture, previewPath } from "../api.js";
import { keep, forget, newId, send, unsent } from "./unsent.js";

const PAGE = 20; // records that are asked for at once
const AHEAD = 3; // pictures that are loaded before they are shown
const UNDOABLE = 500;
const AGAIN = 5000; // milliseconds until what could not be sent is sent again

/** The parameters of a queue, from the query of the page's address. */
export const queueOf = ({ job, snapshot, sample, seed, where, order }) => ({ job, snapshot, sample, seed, where, order });

const stored = (name, otherwise) => {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
};

export const subjectOf = ({ fingerprint, identity, key }) => `${fingerprint}/${identity}/${key}`;

/** A review of a queue by a reviewer. items: by their number in the queue, as far as they are loaded. */
export function useSession(queue, reviewer) {
  const name = useMemo(() => `strata.review.${JSON.stringify([queue, reviewer])}`, [JSON.stringify(queue), reviewer]);
  const [, draw] = useState(0);
  const session = useMemo(() => new Session(queue, reviewer, name, () => draw((number) => number + 1)), [name]);
  useEffect(() => session.open(), [session]);
  return session;
}

class Session {
  constructor(queue, reviewer, name, draw) {
    Object.assign(this, { queue, reviewer, name, draw });
    const { at = null, done = [] } = stored(name, {});
    this.at = at; // the number of the record that is shown; total: the end
    this.done = done; // what can be undone: {at, id, before: the judgment that counted before, or null}
    this.items = new Map();
    this.judged = new Map(); // by subject: the reviewer's judgment that counts, or null
    this.page = null; // the newest answer of the service, for its numbers
    this.before = null; // how many records were judged when the queue was opened
    this.error = null;
    this.unsaved = 0;
    this.refused = [];
    this.said = "";
    this.loading = new Map();
  }

  /** Load the queue, and go on where the reviewer was. */
  open() {
    this.closed = false;
    this.begin();
    return () => {
      this.closed = true;
      clearTimeout(this.timer);
    };
  }

  async begin() {
    await this.flush();
    try {
      const first = await this.load(this.at ?? 0);
      if (this.at === null) this.at = first.resume ?? first.total;
      this.at = Math.min(this.at, first.total);
      this.error = null;
      this.show();
    } catch (error) {
      this.error = error;
    }
    this.draw();
  }

  /** Load the page of records that has a number. */
  load(number) {
    const start = Math.floor(number / PAGE) * PAGE;
    if (!this.loading.has(start)) {
      const query = { ...this.queue, reviewer: this.reviewer, start, limit: PAGE };
      const loading = get("v1/review", query).then((page) => this.take(page));
      loading.catch(() => this.loading.delete(start));
      this.loading.set(start, loading);
    }
    return this.loading.get(start);
  }

  take(page) {
    this.page = page;
    this.before ??= page.done; // later answers count what was said here meanwhile
    page.items.forEach((item, index) => {
      this.items.set(page.start + index, item);
      if (!this.judged.has(subjectOf(item))) this.judged.set(subjectOf(item), item.judgment);
    });
    // what is kept here and was not sent counts more than what the service has
    for (const judgment of unsent()) this.apply(judgment);
    this.draw();
    return page;
  }

  apply(judgment) {
    const item = [...this.items.values()].find((one) => one.job === judgment.job && one.identity === judgment.identity && one.key === judgment.key);
    if (item && judgment.reviewer === this.reviewer) {
      const before = this.done.find(({ id }) => id === judgment.supersedes)?.before ?? null;
      this.judged.set(subjectOf(item), judgment.verdict === "undone" ? before : judgment);
    }
  }

  /** What the reviewer has said of the record with a number; null: nothing. */
  judgmentAt(number) {
    const item = this.items.get(number);
    return item ? (this.judged.get(subjectOf(item)) ?? null) : null;
  }

  get total() {
    return this.page?.total ?? 0;
  }

  get item() {
    return this.items.get(this.at) ?? null;
  }

  /** How many records are judged: what the service said first, and what was said since then. */
  get count() {
    let count = this.before ?? 0;
    for (const item of this.items.values()) {
      count += Number(Boolean(this.judged.get(subjectOf(item)))) - Number(Boolean(item.judgment));
    }
    return count;
  }

  /** Show the record with a number, or the end. */
  go(number) {
    this.at = Math.max(0, Math.min(number, this.total));
    this.store();
    this.show();
    this.draw();
  }

  /** Load the record that is shown, and the pictures of the next ones. */
  show() {
    for (let number = this.at; number < Math.min(this.at + AHEAD + 1, this.total); number += 1) {
      this.load(number).then(() => {
        const item = this.items.get(number);
        if (item && !this.closed) picture(previewPath(item.job, item.key, 1600, item.identity)).catch(() => {});
      }, (error) => {
        this.error = error;
        this.draw();
      });
    }
  }

  /** The first record that is not judged, from a number on and then from the beginning; the end if all are. */
  nextOpen(from) {
    const numbers = Array.from({ length: this.total }, (_, step) => (from + step) % this.total);
    const known = numbers.find((number) => (this.items.has(number) ? !this.judgmentAt(number) : this.count < this.total));
    return known ?? this.total;
  }

  /** Say something of the record that is shown, and go on. */
  judge(verdict, more = {}) {
    const { item } = this;
    if (!item) return;
    const before = this.judgmentAt(this.at);
    const judgment = { id: newId(), job: item.job, identity: item.identity, key: item.key, reviewer: this.reviewer, verdict, ...more };
    if (before) judgment.supersedes = before.id;
    this.put(judgment, judgment);
    this.done = [...this.done, { at: this.at, id: judgment.id, before }].slice(-UNDOABLE);
    const next = this.at + 1;
    this.said = `${verdict}: record ${next} of ${this.total}`;
    this.go(next < this.total ? next : this.nextOpen(next));
  }

  /** Take the last judgment back, and show its record. */
  undo() {
    const last = this.done.at(-1);
    if (!last) return;
    const { item: shown } = this;
    const item = this.items.get(last.at);
    if (!item) {
      this.load(last.at).then(() => this.undo(), () => {});
      return;
    }
    const undone = { id: newId(), job: item.job, identity: item.identity, key: item.key, reviewer: this.reviewer, verdict: "undone", supersedes: last.id };
    this.done = this.done.slice(0, -1);
    this.put(undone, last.before, item);
    this.said = `undone: record ${last.at + 1} of ${this.total}${shown === item ? "" : ", which is shown again"}`;
    this.go(last.at);
  }

  put(judgment, counts, item = this.item) {
    keep(judgment);
    this.judged.set(subjectOf(item), counts);
    this.store();
    this.flush();
  }

  store() {
    localStorage.setItem(this.name, JSON.stringify({ at: this.at, done: this.done }));
  }

  /** Send what is kept, also what is kept meanwhile; later again if the service cannot be reached. */
  flush() {
    clearTimeout(this.timer);
    this.again = true;
    this.sending ??= this.sendAll().finally(() => {
      this.sending = null;
    });
    return this.sending;
  }

  async sendAll() {
    while (this.again) {
      this.again = false;
      this.unsaved = unsent().length;
      this.draw();
      try {
        await send();
        this.refused = [];
        this.fault = null;
      } catch (error) {
        this.fault = error;
        this.refused = error.refused ?? [];
        if (!this.closed && !this.refused.length) this.timer = setTimeout(() => this.flush(), AGAIN);
      }
      this.unsaved = unsent().length;
      this.draw();
    }
  }

  /** Give up the judgments that the service will never take. */
  discard() {
    this.refused.forEach(({ id }) => forget(id));
    this.refused = [];
    this.fault = null;
    this.items.clear();
    this.judged.clear();
    this.loading.clear();
    this.done = [];
    this.before = null;
    this.begin();
  }

  /** The agreement with the others, once all is judged and sent. */
  async agreement(signal) {
    await this.flush();
    return get("v1/review", { ...this.queue, reviewer: this.reviewer, start: 0, limit: 1 }, { signal });
  }
}
