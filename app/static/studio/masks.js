// COCO's compressed run-length encoding, decoded, and the outline of a mask as the path of an SVG.

/** The lengths of the runs of a mask's `counts`: zeros first, then ones, in turn; down each column, column by column.
 * Each number is written in groups of five bits from the lowest on, as a character from 48; bit 6 (32) says that more
 * follow; from the fourth number on it is the difference to the number two before (`rleFrString` of COCO's API). */
export function runsOf(counts) {
  const runs = [];
  let at = 0;
  while (at < counts.length) {
    let value = 0;
    let shift = 0;
    let more = true;
    while (more && at < counts.length) {
      const code = counts.charCodeAt(at) - 48;
      value += (code & 31) * 2 ** shift;
      more = (code & 32) !== 0;
      at += 1;
      shift += 5;
      if (!more && code & 16) value -= 2 ** shift;
    }
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/** The pixels of a mask, 1 where it covers: a Uint8Array, column by column. */
export function pixelsOf(mask) {
  const pixels = new Uint8Array(mask.size[0] * mask.size[1]);
  let at = 0;
  runsOf(mask.counts).forEach((length, index) => {
    if (index % 2) pixels.fill(1, at, at + length);
    at += length;
  });
  return pixels;
}

const MOST_SIDE = 512; // a larger mask is outlined on a coarser grid, which nobody sees

/** The outline of a mask in pixels of its image, for the attribute `d` of a path with fill-rule evenodd. */
export function outlineOf(mask) {
  const [height, width] = mask.size;
  const step = Math.max(1, Math.ceil(Math.max(height, width) / MOST_SIDE));
  const pixels = pixelsOf(mask);
  const covers = (x, y) => {
    const [column, row] = [x * step, y * step];
    return column >= 0 && row >= 0 && column < width && row < height && pixels[column * height + row] === 1;
  };
  const next = edgesOf(Math.ceil(width / step), Math.ceil(height / step), covers);
  return loopsOf(next, Math.ceil(width / step) + 1)
    .map((loop) => `M${loop.map(([x, y]) => `${Math.min(x * step, width)} ${Math.min(y * step, height)}`).join("L")}Z`)
    .join("");
}

/** The directed edges between covered and other cells, the covered one on the right: from each corner to the next ones. */
function edgesOf(columns, rows, covers) {
  const next = new Map();
  const corner = (x, y) => y * (columns + 1) + x;
  const add = (from, to) => next.set(from, [...(next.get(from) ?? []), to]);
  for (let y = 0; y < rows; y += 1) {
    for (let x = 0; x < columns; x += 1) {
      if (!covers(x, y)) continue;
      if (!covers(x, y - 1)) add(corner(x, y), corner(x + 1, y));
      if (!covers(x + 1, y)) add(corner(x + 1, y), corner(x + 1, y + 1));
      if (!covers(x, y + 1)) add(corner(x + 1, y + 1), corner(x, y + 1));
      if (!covers(x - 1, y)) add(corner(x, y + 1), corner(x, y));
    }
  }
  return next;
}

/** The edges joined to closed loops of corners; corners on a straight line are left out. */
function loopsOf(next, across) {
  const loops = [];
  for (const start of next.keys()) {
    while (next.get(start)?.length) {
      const loop = [];
      let at = start;
      do {
        loop.push([at % across, Math.floor(at / across)]);
        at = next.get(at).pop();
      } while (at !== start);
      loops.push(loop.filter(([x, y], index) => {
        const [beforeX, beforeY] = loop.at(index - 1);
        const [afterX, afterY] = loop[(index + 1) % loop.length];
        return (x - beforeX) * (afterY - y) !== (y - beforeY) * (afterX - x);
      }));
    }
  }
  return loops;
}
