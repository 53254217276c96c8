// Describe: images by drop, paste, choice or URL. The address has the jobs, so that a reload keeps the answers:
// #/describe/JOB, #/describe/JOB,JOB (side by side), #/describe/JOB/JOB (one below the other).
import { html, useEffect, useRef, useState } from "../html.js";
import { get, isPassing, post } from "../api.js";
import { Fault } from "../parts.js";
import { go, href } from "../router.js";
import { scrollWhenLong, topOfElement } from "../scroll.js";
import { useLoaded, useTitle } from "../use.js";
import { Answer, pictureOf } from "../answer.js";
import { NO_TEXTS, TextFields, textsOf } from "../texts.js";

const MOST_IMAGES = 20; // in one drop; a folder of more is a job for Jobs
const IS_URL = /^https?:\/\/\S+$/i;

export function Describe({ parts }) {
  useTitle("Describe");
  const groups = parts.map((part) => part.split(",").filter(Boolean));
  return html`<h1>Describe</h1>
    <${Form} />
    ${groups.map((jobs) => html`<div class=${jobs.length > 1 ? "beside" : ""} key=${jobs.join()}>
      ${jobs.map((job) => html`<${Answer} key=${job} job=${job} />`)}
    </div>`)}`;
}

function Form() {
  const { value: profiles, error: noProfiles } = useLoaded(async (signal) => (await get("v1/profiles", {}, { signal })).profiles, []);
  const [chosen, choose] = useState({ profile: "", other: "", alt: "", url: "" });
  const [texts, setTexts] = useState(NO_TEXTS);
  const [sending, setSending] = useState(false);
  const [error, setError] = useState(null);
  const set = (name) => (event) => choose((old) => ({ ...old, [name]: event.target.value }));
  const usable = (profiles ?? []).filter((one) => !one.faults.length);
  const first = usable.find((one) => one.default);
  const shown = usable.find((one) => one.name === (chosen.profile || first?.name));

  const send = async (images) => {
    if (!images.length || sending) return;
    setSending(true);
    setError(null);
    try {
      if (images.length > MOST_IMAGES) throw new Error(`These are ${images.length} images: describe at most ${MOST_IMAGES} here, and submit more of them as a job.`);
      const names = chosen.other ? [chosen.profile, chosen.other] : [chosen.profile];
      const groups = [];
      const refused = [];
      for (const image of images) {
        try {
          groups.push(await Promise.all(names.map((profile) => submit(image, profile, chosen.alt, textsOf(texts)))));
        } catch (fault) {
          // what is wrong with one image says nothing of the others
          if (isPassing(fault) || [401, 403].includes(fault.status)) throw fault;
          refused.push(`${image.name ?? image}: ${fault.message}`);
        }
      }
      if (groups.length) {
        go(href(["describe"]) + groups.map((jobs) => `/${jobs.join(",")}`).join(""));
        showAnswer(groups[0][0]);
      }
      if (refused.length) setError(new Error(refused.join("\n")));
    } catch (refused) {
      setError(refused);
    }
    setSending(false);
  };
  usePaste(send);
  return html`<section aria-label="Images">
    <${Drop} send=${send} sending=${sending} />
    <form class="row" onSubmit=${(event) => {
      event.preventDefault();
      send([chosen.url.trim()]);
    }}>
      <label class="field grow">or the address of an image <input type="url" required placeholder="https://" value=${chosen.url} onInput=${set("url")} /></label>
      <button type="submit" disabled=${sending}>Describe</button>
    </form>
    <div class="fields">
      <label class="field">Profile <select value=${chosen.profile} onChange=${set("profile")}>
        <option value="">${first ? `${first.name} (default)` : "default of the service"}</option>
        ${usable.filter((one) => !one.default).map((one) => html`<option key=${one.name} value=${one.name}>${one.name}</option>`)}
      </select></label>
      <label class="field">Compare with <select value=${chosen.other} onChange=${set("other")}>
        <option value="">no other profile</option>
        ${usable.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}</option>`)}
      </select></label>
      <label class="field">Alt text <input maxlength="4096" placeholder="if the image has one" value=${chosen.alt} onInput=${set("alt")} /></label>
    </div>
    <${TextFields} given=${texts} profile=${shown} change=${(part) => setTexts((old) => ({ ...old, ...part }))} />
    ${shown?.summary && html`<p class="hint">${shown.name}: ${shown.summary}</p>`}
    <${Fault} error=${error ?? noProfiles} />
  </section>`;
}

/** Scroll to an answer, if it begins so far down that one would not see it. */
function showAnswer(job) {
  scrollWhenLong(() => {
    const panel = document.querySelector(`[aria-label="Answer ${job}"]`);
    if (!panel) return null;
    return panel.getBoundingClientRect().top > window.innerHeight / 2 ? topOfElement(panel) : window.scrollY;
  });
}

/** Create the job of an image, a file or a URL; its id. */
async function submit(image, profile, alt, texts) {
  if (typeof image === "string") {
    const body = { image_url: image, ...(profile && { profile }), ...(alt && { alt_text: alt }), ...texts };
    return (await post("v1/captions", body)).id;
  }
  const form = new FormData();
  form.append("file", image);
  if (profile) form.append("profile", profile);
  if (alt) form.append("alt_text", alt);
  for (const [name, value] of Object.entries(texts)) form.append(name, String(value)); // a list with commas
  const { id } = await post("v1/captions", form);
  pictureOf.set(id, { url: URL.createObjectURL(image), name: image.name });
  return id;
}

function Drop({ send, sending }) {
  const pick = useRef(null);
  const [isOver, setOver] = useState(false);
  const over = (event) => {
    event.preventDefault();
    setOver(true);
  };
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    send(imagesOf(event.dataTransfer));
  };
  return html`<div class=${`drop ${isOver ? "over" : ""}`} id="drop" onDragOver=${over} onDragLeave=${() => setOver(false)} onDrop=${drop}>
    <p>Drop or paste images here</p>
    <button type="button" class="primary" disabled=${sending} onClick=${() => pick.current.click()}>${sending ? "Sending …" : "Choose images"}</button>
    <input ref=${pick} type="file" accept="image/*" multiple hidden aria-label="Images" onChange=${async (event) => {
      await send([...event.target.files]);
      pick.current.value = "";
    }} />
  </div>`;
}

/** The files of a drop or a paste, or the address that it has. */
function imagesOf(data) {
  if (data.files.length) return [...data.files];
  const text = (data.getData("text/uri-list") || data.getData("text/plain")).trim();
  return IS_URL.test(text) ? [text] : [];
}

/** Send what is pasted anywhere but in a field. */
function usePaste(send) {
  const newest = useRef(send);
  newest.current = send;
  useEffect(() => {
    const paste = (event) => {
      if (!event.target.closest?.("input, textarea")) newest.current(imagesOf(event.clipboardData));
    };
    window.addEventListener("paste", paste);
    return () => window.removeEventListener("paste", paste);
  }, []);
}
