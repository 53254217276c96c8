// Gallery: a grid of records of a job, a snapshot or a search.
import { html } from "../html.js";
import { useTitle } from "../use.js";

export function Gallery() {
  useTitle("Gallery");
  return html`<h1>Gallery</h1>`;
}
