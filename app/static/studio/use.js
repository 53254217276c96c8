// Hooks that pages share.
import { useEffect, useLayoutEffect, useRef, useState } from "./html.js";

/** What `load(signal)` gives, again whenever one of `parts` changes: {value, error, loading, reload}. */
export function useLoaded(load, parts) {
  const [state, set] = useState({ value: null, error: null, loading: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    set((before) => ({ ...before, error: null, loading: true }));
    load(control.signal).then(
      (value) => control.signal.aborted || set({ value, error: null, loading: false }),
      (error) => control.signal.aborted || set({ value: null, error, loading: false }),
    );
    return () => control.abort();
  }, [...parts, turn]);
  return { ...state, reload: () => setTurn((number) => number + 1) };
}

/** Call `act` every so many milliseconds while the tab is shown, one call after the end of the other. */
export function useEvery(milliseconds, act, parts) {
  const newest = useRef(act);
  newest.current = act;
  useEffect(() => {
    let timer = 0;
    let ended = false;
    const again = async () => {
      if (!document.hidden) await newest.current();
      if (!ended) timer = setTimeout(again, milliseconds);
    };
    again();
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, parts);
}

/** The title of the tab while a component is shown. */
export function useTitle(title) {
  useEffect(() => {
    document.title = title ? `${title} – Strata` : "Strata";
  }, [title]);
}

/** Set the fields of a form to what the address has, whenever that changes. They must have no `value` of their own:
 * Preact would set it again whenever the page is drawn, and what is being typed would be lost. The fields stay the same
 * elements, so that the one with the focus keeps it. values: by the fields' names. */
export function useFields(form, values) {
  useLayoutEffect(() => {
    for (const [name, value] of Object.entries(values)) {
      form.current.querySelector(`[name="${name}"]`).value = value ?? "";
    }
  }, Object.values(values));
}
