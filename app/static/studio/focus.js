// Keeps the focus for who uses the keyboard: an element that has it may be removed or disabled when a page is drawn again.

/** From now on: whose element was disabled gets the focus back with it; whose element is gone is on the page's region. */
export function keepFocus() {
  let last = null; // the element that the person has put the focus on
  document.addEventListener("focusin", (event) => {
    last = event.target;
  });
  // a click beside all elements takes the focus away for good
  document.addEventListener("pointerdown", () => {
    last = null;
  }, true);
  const check = () => {
    if (!last || document.activeElement !== document.body) return;
    if (!last.isConnected) document.getElementById("main")?.focus({ preventScroll: true });
    else if (!last.disabled) last.focus({ preventScroll: true });
  };
  // a browser moves the focus away from a disabled element only when it draws
  new MutationObserver(() => requestAnimationFrame(() => setTimeout(check))).observe(document.getElementById("app"), {
    childList: true, subtree: true, attributes: true, attributeFilter: ["disabled"],
  });
}
