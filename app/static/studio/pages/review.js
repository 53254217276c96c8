// Review: people judge records, sentence by sentence.
import { html } from "../html.js";
import { useTitle } from "../use.js";

export function Review() {
  useTitle("Review");
  return html`<h1>Review</h1>`;
}
