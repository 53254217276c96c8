// The sign-in: a page where a key is needed and there is no session, and a dialog over the page whose session has ended.
import { html, useEffect, useRef, useState } from "../html.js";
import { signIn } from "../api.js";
import { Fault } from "../parts.js";
import { useTitle } from "../use.js";

/** The page. reason: why there is no session any more, if there was one; done(session): after the sign-in. */
export function SignInPage({ reason, done }) {
  useTitle("Sign in");
  const finish = (session) => {
    done(session);
    document.getElementById("main").focus();
  };
  return html`<h1>Sign in</h1>
    ${reason && html`<p class="warning">${reason}</p>`}
    <${SignInForm} done=${finish} />`;
}

/** The dialog, which opens when a request is refused because the session has ended. What was typed stays. */
export function SignInAgain({ done }) {
  const dialog = useRef(null);
  const [isOpen, open] = useState(false);
  useEffect(() => {
    const ask = () => open(true);
    const close = () => open(false);
    window.addEventListener("strata:unauthorized", ask);
    window.addEventListener("strata:signed-in", close); // also by another place
    return () => {
      window.removeEventListener("strata:unauthorized", ask);
      window.removeEventListener("strata:signed-in", close);
    };
  }, []);
  useEffect(() => {
    if (isOpen) dialog.current.showModal();
  }, [isOpen]);
  // without a session the page can do nothing: Escape does not close it
  return isOpen ? html`<dialog class="detail sign-in-again" ref=${dialog} aria-labelledby="sign-in-again"
      onCancel=${(event) => event.preventDefault()}>
    <h2 id="sign-in-again">Sign in again</h2>
    <p>Your session has ended. The page goes on where it was.</p>
    <${SignInForm} done=${done} />
  </dialog>` : null;
}

function SignInForm({ done }) {
  const [error, setError] = useState(null);
  const [isSending, setSending] = useState(false);
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  const send = async (event) => {
    event.preventDefault();
    if (isSending) return;
    setSending(true);
    setError(null);
    try {
      done(await signIn(field.current.value.trim()));
    } catch (refused) {
      setError(refused);
      setSending(false);
      field.current.select();
    }
  };
  return html`<form class="sign-in" onSubmit=${send}>
    <label class="field">API key <input name="key" type="password" ref=${field} required autocomplete="current-password"
      aria-describedby="key-hint" aria-invalid=${error ? "true" : undefined} /></label>
    <p class="hint" id="key-hint">It begins with strata_, unless it is the operator's. The operator of the service makes keys.</p>
    <${Fault} error=${error} />
    <p><button type="submit" class="primary">${isSending ? "Signing in …" : "Sign in"}</button></p>
  </form>`;
}
