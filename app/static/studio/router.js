// Addresses within the studio lie behind "#", so that they work below every path prefix and without a server's help.
import { useEffect, useState } from "./html.js";

/** The link to a page: its path's parts, and a query. */
export function href(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(given).toString();
  return `#/${parts.map((part) => encodeURIComponent(part).replaceAll("%2C", ",")).join("/")}${search && `?${search}`}`;
}

/** Go to a link; replace: without an entry in the browser's history. */
export function go(link, { replace = false } = {}) {
  if (replace) {
    history.replaceState(history.state, "", link);
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  } else location.hash = link;
}

/** The parts and the query of the current address. */
export function route() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return { parts: path.split("/").filter(Boolean).map(decoded), query: Object.fromEntries(new URLSearchParams(search)) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a person has typed a lone %
  }
}

/** The current route; the component is drawn again when it changes. */
export function useRoute() {
  const [current, set] = useState(route);
  useEffect(() => {
    const update = () => set(route());
    window.addEventListener("hashchange", update);
    return () => window.removeEventListener("hashchange", update);
  }, []);
  return current;
}
