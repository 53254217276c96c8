// Plots with uPlot in the colours of the theme.
import { html, useEffect, useRef } from "./html.js";
import uPlot from "./vendor/uplot.js";
import { count, rate } from "./text.js";

const HEIGHT = 160;

/** A plot that has the width of its place. data: as uPlot takes it; series: of the lines. */
export function Plot({ data, series, axes, label }) {
  const place = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    const at = place.current;
    const style = getComputedStyle(at);
    const ink = style.getPropertyValue("color");
    const lines = series.map((one) => ({ ...one, stroke: ink, width: 2 }));
    plot.current = new uPlot({
      width: at.clientWidth, height: HEIGHT, legend: { show: false }, cursor: { show: false }, scales: { x: { time: false } },
      series: [{}, ...lines], axes: axes.map((one) => ({ ...one, stroke: ink, grid: { stroke: "#8884", width: 1 }, ticks: { show: false } })),
    }, data, at);
    const watch = new ResizeObserver(() => plot.current?.setSize({ width: at.clientWidth, height: HEIGHT }));
    watch.observe(at);
    return () => {
      watch.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => plot.current?.setData(data), [data]);
  return html`<figure class="plot"><div ref=${place} role="img" aria-label=${label}></div><figcaption class="hint">${label}</figcaption></figure>`;
}

/** How many images of a job are done, drawn from when the page was opened. samples: [seconds since then, images, images per second] */
export function RateChart({ samples }) {
  const newest = samples.at(-1);
  return html`<${Plot} data=${[samples.map(([at]) => at), samples.map(([, done]) => done)]} series=${[{ label: "images" }]}
    axes=${[{ space: 90, values: (_, ticks) => ticks.map((at) => `${at} s`) }, { size: 70, values: (_, ticks) => ticks.map((value) => (Number.isInteger(value) ? count(value) : "")) }]}
    label=${`Images of the job that are done: ${count(newest[1])}, now ${rate(newest[2])}. The plot begins when this page was opened.`} />`;
}
