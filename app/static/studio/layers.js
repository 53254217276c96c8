// The table of layers of `strata.core.layers`, which the service writes into the page as JSON, and names of entries.

/** @type {import("./types.js").Layer[]} */
export const LAYERS = JSON.parse(document.getElementById("layers").textContent);
export const LAYER = new Map(LAYERS.map((layer) => [layer.name, layer]));
// layers whose entries have scores, and those that are drawn on the picture
export const SCORED = LAYERS.filter((layer) => layer.form === "entry" || layer.form === "entries");
export const DRAWN = SCORED.filter((layer) => layer.boxed);

/** The entries of a layer of a record; none of one that is null. */
export function entriesOf(layer, record) {
  const value = record[layer.name];
  if (value === null || value === undefined) return [];
  return layer.form === "entries" ? value : [value];
}

/** The name of an entry as sentences give it: "caption", "regions/0". */
export const nameOf = (layer, index) => (layer.form === "entries" ? `${layer.name}/${index}` : layer.name);

/** An entry by its name: its layer, and itself; null if the record has none. */
export function entryNamed(record, name) {
  const [of, index] = name.split("/");
  const layer = LAYER.get(of);
  const entry = layer && entriesOf(layer, record)[Number(index ?? 0)];
  return entry ? { layer, entry, name } : null;
}

/** The words of an entry, in quotes if they can be read in the picture. */
export function wordsOf(layer, entry) {
  const words = entry[layer.words] ?? "";
  return layer.quoted && words ? `“${words}”` : words || `unnamed ${layer.entry}`;
}
