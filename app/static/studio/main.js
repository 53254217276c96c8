// The studio: navigation, theme and key around the page of the current address.
import { html, render, useEffect, useRef, useState } from "./html.js";
import { apiKey, setApiKey } from "./api.js";
import { keepFocus } from "./focus.js";
import { href, useRoute } from "./router.js";
import { keepScroll, pageOf } from "./scroll.js";
import { chosenTheme, setTheme } from "./theme.js";
import { Describe } from "./pages/describe.js";
import { Gallery } from "./pages/gallery.js";
import { Jobs } from "./pages/jobs.js";
import { JobDetail } from "./pages/job.js";
import { RecordPage } from "./pages/record.js";
import { Review } from "./pages/review.js";

// each page gets the parts of the address after its name, and the query
const PAGES = { describe: Describe, jobs: Jobs, job: JobDetail, records: RecordPage, gallery: Gallery, review: Review };
const TABS = [["describe", "Describe"], ["jobs", "Jobs"], ["gallery", "Gallery"], ["review", "Review"]];
const TAB_OF = { job: "jobs" };

function App() {
  const { parts, query } = useRoute();
  const [name = "describe", ...rest] = parts;
  const Page = Object.hasOwn(PAGES, name) ? PAGES[name] : null;
  const tab = TAB_OF[name] ?? name;
  // a screen reader is told of a new page, and the next Tab goes into it, by the focus on it
  const { cursor } = pageOf({ parts, query });
  const before = useRef({ name, cursor });
  useEffect(() => {
    const left = before.current;
    before.current = { name, cursor };
    const rows = left.name === name && document.querySelector("[data-rows]");
    if (left.name !== name || left.cursor !== cursor) (rows || document.getElementById("main")).focus({ preventScroll: true });
  }, [name, cursor]);
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <header class="top">
      <a class="brand" href=${href([])}>Strata</a>
      <nav aria-label="Pages"><ul>${TABS.map(([one, title]) => html`<li key=${one}>
        <a href=${href([one])} aria-current=${one === tab ? "page" : undefined}>${title}</a></li>`)}</ul></nav>
      <div class="tools"><${KeyBox} /><${ThemeBox} /><a href="docs">API</a></div>
    </header>
    <main id="main" tabindex="-1">${
      Page ? html`<${Page} key=${name} parts=${rest} query=${query} />` : html`<h1>No such page</h1><p><a href=${href([])}>Describe an image</a></p>`
    }</main>`;
}

function skip(event) {
  event.preventDefault(); // the part behind # is the address of a page
  document.getElementById("main").focus();
}

function ThemeBox() {
  const [theme, set] = useState(chosenTheme);
  const choose = (event) => {
    setTheme(event.target.value);
    set(event.target.value);
  };
  return html`<label><span class="theme-word">Theme</span> <select value=${theme} onChange=${choose}>
    <option value="system">system</option><option value="light">light</option><option value="dark">dark</option>
  </select></label>`;
}

/** The API key. It opens by itself when the service refuses a request without one. */
function KeyBox() {
  const [isOpen, open] = useState(false);
  const [refused, setRefused] = useState(false);
  const form = useRef(null);
  const button = useRef(null);
  useEffect(() => {
    const ask = () => {
      setRefused(true);
      open(true);
    };
    const close = (event) => {
      if (event.type === "keydown" && event.key !== "Escape") return;
      if (form.current.contains(document.activeElement)) button.current.focus(); // what is hidden has no focus
      open(false);
    };
    window.addEventListener("strata:unauthorized", ask);
    window.addEventListener("hashchange", close);
    window.addEventListener("keydown", close);
    return () => {
      window.removeEventListener("strata:unauthorized", ask);
      window.removeEventListener("hashchange", close);
      window.removeEventListener("keydown", close);
    };
  }, []);
  // a page that is scrolled would not show that it needs a key
  useEffect(() => {
    if (isOpen && refused) form.current.querySelector("input").focus();
  }, [isOpen, refused]);
  const save = (event) => {
    event.preventDefault();
    setApiKey(new FormData(event.target).get("key").trim());
    location.reload(); // every page asks again with the key; its address holds what it shows
  };
  return html`<div class="key">
    <button type="button" ref=${button} aria-expanded=${isOpen} aria-controls="key-form" onClick=${() => open(!isOpen)}>${apiKey() ? "API key ✓" : "API key"}</button>
    <form id="key-form" ref=${form} hidden=${!isOpen} onSubmit=${save}>
      ${refused && html`<p class="fault" role="alert">${apiKey() ? "The service refuses this key." : "The service requires an API key."}</p>`}
      <label>API key <input name="key" type="password" autocomplete="off" defaultValue=${apiKey()} /></label>
      <p class="hint">Kept in this tab until it is closed.</p>
      <button type="submit">Use the key</button>
    </form>
  </div>`;
}

keepFocus();
render(html`<${App} />`, document.getElementById("app"));
keepScroll();
