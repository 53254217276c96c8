// Panning and zooming of what a picture's frame holds: by pointer, pinch, wheel with Ctrl, keys and buttons.
import { html, useEffect, useRef, useState } from "./html.js";

const MOST = 16; // times
const STEP = 1.4;
const WHOLE = { scale: 1, x: 0, y: 0 };

/** A view within its frame: the content always covers the frame. x, y: the content's offset in pixels of the frame. */
function bounded({ scale, x, y }, { width, height }) {
  const within = Math.min(MOST, Math.max(1, scale));
  return {
    scale: within,
    x: Math.min(0, Math.max(width * (1 - within), x)),
    y: Math.min(0, Math.max(height * (1 - within), y)),
  };
}

/** The view after zooming by a factor around a point of the frame. */
function zoomed(view, factor, at, frame) {
  const scale = Math.min(MOST, Math.max(1, view.scale * factor));
  const by = scale / view.scale;
  return bounded({ scale, x: at.x - (at.x - view.x) * by, y: at.y - (at.y - view.y) * by }, frame);
}

/** A frame whose content can be moved and enlarged. size: the width and height of what it shows, 0 if not known yet. */
export function PanZoom({ children, label, size: [across, down] = [0, 0] }) {
  const frame = useRef(null);
  const pointers = useRef(new Map());
  const [view, setView] = useState(WHOLE);
  const size = () => frame.current.getBoundingClientRect();
  const middle = () => ({ x: size().width / 2, y: size().height / 2 });
  const zoom = (factor, at = middle()) => setView((old) => zoomed(old, factor, at, size()));
  const move = (x, y) => setView((old) => bounded({ ...old, x: old.x + x, y: old.y + y }, size()));

  // a wheel alone scrolls the page, as everywhere; listeners of Preact for wheels cannot prevent that
  useEffect(() => {
    const wheel = (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 200), within(event, size()));
    };
    frame.current.addEventListener("wheel", wheel, { passive: false });
    const node = frame.current;
    return () => node.removeEventListener("wheel", wheel);
  }, []);

  const press = (event) => {
    pointers.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
  };
  const drag = (event) => {
    const before = pointers.current.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...pointers.current].find(([id]) => id !== event.pointerId)?.[1];
    if (other) zoom(distance(now, other) / Math.max(1, distance(before, other)), within(event, size()));
    else if (view.scale > 1) move(now.x - before.x, now.y - before.y);
    pointers.current.set(event.pointerId, now);
  };
  const up = (event) => pointers.current.delete(event.pointerId);
  const keys = {
    "+": () => zoom(STEP),
    "=": () => zoom(STEP),
    "-": () => zoom(1 / STEP),
    0: () => setView(WHOLE),
    ArrowLeft: () => move(40, 0),
    ArrowRight: () => move(-40, 0),
    ArrowUp: () => move(0, 40),
    ArrowDown: () => move(0, -40),
  };
  const key = (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow") && view.scale === 1) return;
    event.preventDefault();
    act();
  };
  const place = {
    transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})`,
    ...(across > 0 ? { aspectRatio: `${across} / ${down}` } : { minHeight: "14rem" }),
  };
  // pages limit the height of the frame by its width
  const ratio = across > 0 ? { "--ratio": across / down } : {};
  return html`<div class="panzoom">
    <div class=${`frame ${view.scale > 1 ? "enlarged" : ""}`} style=${ratio} ref=${frame} tabindex="0" role="group"
      aria-label=${`${label}; plus and minus zoom, arrows move`}
      onKeyDown=${key} onPointerDown=${press} onPointerMove=${drag} onPointerUp=${up} onPointerCancel=${up}
      onPointerLeave=${up}>
      <div class="content" style=${place}>${children}</div>
    </div>
    <div class="zooms">
      <button type="button" onClick=${() => zoom(STEP)} aria-label="Zoom in">+</button>
      <button type="button" onClick=${() => zoom(1 / STEP)} aria-label="Zoom out" disabled=${view.scale === 1}>−</button>
      <button type="button" onClick=${() => setView(WHOLE)} aria-label="Whole picture" disabled=${view.scale === 1}>⤢</button>
    </div>
  </div>`;
}

const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);
const within = (event, box) => ({ x: event.clientX - box.left, y: event.clientY - box.top });
