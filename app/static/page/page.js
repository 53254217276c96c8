"use strict";
const byId = (id) => document.getElementById(id);
const headers = () => (byId("key").value ? { "X-API-Key": byId("key").value } : {});

// texts are set as textContent and never as HTML: names and captions come from untrusted sources
function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function call(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({ title: response.statusText, detail: "" }));
    throw new Error(`${problem.title}: ${problem.detail}`);
  }
  return response;
}

const percent = (p) => (p === null || p === undefined ? "" : ` ${Math.round(p * 100)} %`);

// the table of layers of strata.core.layers as JSON, which the service inserts into the page
const LAYERS = JSON.parse(byId("layers").textContent);

function entryText(layer, entry) {
  const words = entry[layer.words] ?? "";
  const reason = entry.reason ? ` (${entry.reason})` : "";
  return `${layer.quoted ? `“${words}”` : words}${percent(entry.match ?? entry.score)}${reason}`;
}

function layerOf(layer, value) {
  const part = element("section");
  part.append(element("h3", layer.title));
  if (value === null || value === undefined) {
    part.append(element("p", "not computed"));
  } else if (layer.form === "text" || layer.form === "sentences") {
    part.append(element("p", layer.form === "text" ? value : value[layer.words]));
  } else {
    const list = element("ul");
    for (const entry of layer.form === "entry" ? [value] : value) {
      list.append(element("li", entryText(layer, entry), entry.kept ? "" : "dropped"));
    }
    part.append(list.children.length ? list : element("p", "nothing found"));
  }
  return part;
}

function layersOf(record) {
  const all = element("div");
  if (record.failure) {
    const ending = record.status === "filtered" ? "Filtered by" : "Failed in";
    all.append(element("p", `${ending} ${record.failure.stage}: ${record.failure.detail}`, "error"));
  }
  for (const warning of record.warnings || []) all.append(element("p", `Warning: ${warning.detail}`, "warning"));
  // the description first, then the layers that it is composed from, then the alt text
  const order = ["sentences", "entry", "entries", "text"];
  for (const layer of [...LAYERS].sort((a, b) => order.indexOf(a.form) - order.indexOf(b.form))) {
    const value = record[layer.name];
    if ((value !== null && value !== undefined) || layer.form.startsWith("entr")) all.append(layerOf(layer, value));
  }
  return all;
}

async function describe(file) {
  byId("message").className = "";
  byId("message").textContent = `${file.name}: in progress …`;
  byId("answer").replaceChildren();
  const form = new FormData();
  form.append("file", file);
  for (const name of ["alt", "profile"]) {
    if (byId(name).value) form.append(name === "alt" ? "alt_text" : name, byId(name).value);
  }
  try {
    const response = await call("/v1/captions", { method: "POST", body: form, headers: { Prefer: "wait=60" } });
    const answer = await response.json();
    if (response.status === 202) {
      byId("message").textContent = `Not finished yet; see job ${answer.id} below.`;
      return;
    }
    byId("message").textContent = `${file.name}, described with the profile ${answer.profile}`;
    const picture = element("img");
    picture.alt = answer.description?.text ?? file.name;
    byId("answer").append(picture, layersOf(answer));
    const place = response.headers.get("Content-Location");
    const drawn = await (await call(`${place}/overlay.png`)).blob();
    picture.onload = () => URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(drawn);
  } catch (error) {
    byId("message").className = "error";
    byId("message").textContent = error.message;
  }
}

function statusOf(job) {
  const whole = job.status === "failed" && job.request_counts.cancelled ? " as a whole" : "";
  if (job.error) return `${job.status}${whole}: ${job.error}`;
  if (!job.waiting) return job.status;
  const since = new Date(job.waiting.since).toLocaleTimeString();
  return `${job.status}, waits for ${job.waiting.stage} since ${since}: ${job.waiting.reason}`;
}

function jobRow(job) {
  const counts = job.request_counts;
  const done = counts.succeeded + counts.filtered + counts.failed;
  const ended = ["filtered", "failed"].filter((name) => counts[name]).map((name) => `, ${counts[name]} ${name}`);
  const row = element("tr");
  const bar = element("progress");
  bar.max = counts.total || 1;
  bar.value = done;
  const images = element("td");
  images.append(bar, ` ${done} / ${counts.total}${ended.join("")}`);
  const id = element("td");
  id.append(element("code", job.id));
  row.append(
    id,
    element("td", job.kind),
    element("td", job.profile),
    Object.assign(element("td", statusOf(job)), { className: "status" }),
    images,
    element("td", job.images_per_second === null ? "" : `${job.images_per_second.toFixed(1)} images/s`),
    element("td", job.eta_seconds === null ? "" : `${Math.ceil(job.eta_seconds)} s`),
  );
  return row;
}

async function showJobs() {
  try {
    if (!document.hidden) {
      const page = await (await call("/v1/jobs?limit=20")).json();
      byId("jobs").replaceChildren(...page.jobs.map(jobRow));
      byId("jobs-message").textContent = "";
    }
  } catch (error) {
    byId("jobs-message").textContent = error.message;
  }
  setTimeout(showJobs, 1500);
}

// the names of the profiles that requests can use, each with what it is for
async function offerProfiles() {
  try {
    const { profiles } = await (await call("/v1/profiles")).json();
    const usable = profiles.filter((profile) => !profile.faults.length);
    byId("profiles").replaceChildren(...usable.map((profile) => new Option(profile.summary, profile.name)));
  } catch (error) {
    byId("message").textContent = error.message;
  }
}

byId("profile").addEventListener("focus", offerProfiles);
const drop = byId("drop");
const pick = byId("file");
drop.addEventListener("click", () => pick.click());
drop.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    pick.click();
  }
});
pick.addEventListener("click", (event) => event.stopPropagation());
pick.addEventListener("change", () => pick.files[0] && describe(pick.files[0]).then(() => (pick.value = "")));
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files[0]) describe(event.dataTransfer.files[0]);
});
showJobs();
