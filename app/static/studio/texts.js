// The fields by which a request says what texts it wants besides the description.
import { html } from "./html.js";

// the names of variants in strata.core.parameters.texts
export const VARIANTS = ["short", "medium", "long", "tags", "json", "questions"];
export const NO_TEXTS = { variants: [], language: "", prompt: "" };

/** What of the fields is set, as a request has it. */
export const textsOf = ({ variants, language, prompt }) => ({
  ...(variants.length && { variants }),
  ...(language.trim() && { language: language.trim().toLowerCase() }),
  ...(prompt.trim() && { prompt }),
});

/** What a profile writes besides the description, "" for nothing.
 * @param {import("./types.js").TextFields} given */
function toldTexts({ variants, language, prompt }) {
  return [
    variants?.length && `writes ${variants.join(", ")} besides the description`,
    language && `writes in ${language}`,
    prompt && `has the prompt “${prompt}”`,
  ].filter(Boolean).join(", ");
}

/** The fields, behind a summary, because most people need none. given: as NO_TEXTS; change(part) sets some of it.
 * profile: the ProfileView that is chosen, if it is known. */
export function TextFields({ given, change, profile }) {
  const toggle = (name) => change({ variants: VARIANTS.filter((one) => (one === name) !== given.variants.includes(one)) });
  const told = profile ? toldTexts(profile.texts) : "";
  return html`<details class="more"><summary>More texts, language and prompt</summary>
    <fieldset class="switches"><legend>Texts besides the description</legend>${VARIANTS.map((name) => html`<label key=${name}>
      <input type="checkbox" checked=${given.variants.includes(name)} onChange=${() => toggle(name)} />${name}</label>`)}</fieldset>
    <div class="fields">
      <label class="field">Language <input maxlength="2" pattern="[A-Za-z]{2}" placeholder="as the profile has it, such as de" value=${given.language}
        onInput=${(event) => change({ language: event.target.value })} /></label>
      <label class="field">Prompt <textarea rows="2" maxlength="4000" placeholder="of your own; {name} stands for a field of the sample" value=${given.prompt}
        onInput=${(event) => change({ prompt: event.target.value })}></textarea></label>
    </div>
    ${told && html`<p class="hint">${profile.name} ${told}. What is set here takes the place of that.</p>`}</details>`;
}
