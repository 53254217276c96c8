// The studio: navigation, theme and sign-in around the page of the current address.
import { html, render, useEffect, useRef, useState } from "./html.js";
import { loadSession, signOut } from "./api.js";
import { keepFocus } from "./focus.js";
import { Busy, Fault } from "./parts.js";
import { href, useRoute } from "./router.js";
import { keepScroll, pageOf } from "./scroll.js";
import { chosenTheme, setTheme } from "./theme.js";
import { Compare } from "./pages/compare.js";
import { Describe } from "./pages/describe.js";
import { Gallery } from "./pages/gallery.js";
import { Jobs } from "./pages/jobs.js";
import { JobDetail } from "./pages/job.js";
import { RecordPage } from "./pages/record.js";
import { Review } from "./pages/review.js";
import { SignInAgain, SignInPage } from "./pages/sign_in.js";

// each page gets the parts of the address after its name, and the query
const PAGES = { describe: Describe, jobs: Jobs, job: JobDetail, records: RecordPage, gallery: Gallery, compare: Compare, review: Review };
const TABS = [["describe", "Describe"], ["jobs", "Jobs"], ["gallery", "Gallery"], ["review", "Review"]];
const TAB_OF = { job: "jobs", compare: "jobs" };

function App() {
  const { parts, query } = useRoute();
  const [name = "describe", ...rest] = parts;
  const Page = Object.hasOwn(PAGES, name) ? PAGES[name] : null;
  const tab = TAB_OF[name] ?? name;
  // a screen reader is told of a new page, and the next Tab goes into it, by the focus on it
  const { cursor } = pageOf({ parts, query });
  const before = useRef({ name, cursor });
  const { session, error, load, set } = useSession();
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
      <div class="tools"><${WhoBox} session=${session} /><${ThemeBox} /><a href="docs">API</a></div>
    </header>
    <main id="main" tabindex="-1">${
      !session ? (error ? html`<h1>Strata</h1><${Fault} error=${error} retry=${load} />` : html`<${Busy}>Asking the service<//>`)
      : session.state === "signed_out" ? html`<${SignInPage} reason=${session.reason} done=${set} />`
      : Page ? html`<${Page} key=${name} parts=${rest} query=${query} />` : html`<h1>No such page</h1><p><a href=${href([])}>Describe an image</a></p>`
    }</main>
    ${session && session.state !== "signed_out" && html`<${SignInAgain} done=${set} />`}`;
}

/** As whom the service knows this browser: {session, error, load, set}; session is null until it is known. */
function useSession() {
  const [state, setState] = useState({ session: null, error: null });
  const set = (session) => setState({ session, error: null });
  const load = () => loadSession().then(set, (error) => setState({ session: null, error }));
  useEffect(() => {
    load();
  }, []);
  return { ...state, load, set };
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

/** As whom the person is signed in, and the way out; nothing where no key is needed. */
function WhoBox({ session }) {
  const [error, setError] = useState(null);
  if (session?.state !== "signed_in") return null;
  return html`<span class="who" title=${`key ${session.key}, tenant ${session.tenant}`}>${session.name}</span>
    <button type="button" onClick=${() => signOut().catch(setError)}>Sign out</button><${Fault} error=${error} />`;
}

keepFocus();
render(html`<${App} />`, document.getElementById("app"));
keepScroll();
