// Which words of two texts differ: the longest common sequence of words stays, all else is changed.

const MOST = 600; // words of a text, above which nothing is compared: the table grows with the product

/** Two texts as pieces {text, isChanged}: [of the first, of the second]. */
export function changes(before, after) {
  const [left, right] = [wordsOf(before), wordsOf(after)];
  if (left.length > MOST || right.length > MOST) return [[{ text: before, isChanged: false }], [{ text: after, isChanged: false }]];
  const table = lengths(left, right);
  const [first, second] = [[], []];
  let [i, j] = [0, 0];
  while (i < left.length || j < right.length) {
    if (i < left.length && j < right.length && isSame(left[i], right[j])) {
      first.push([left[i++], false]);
      second.push([right[j++], false]);
    } else if (j >= right.length || (i < left.length && table[i + 1][j] >= table[i][j + 1])) first.push([left[i++], true]);
    else second.push([right[j++], true]);
  }
  return [joined(first), joined(second)];
}

/** Words, each with the white space around it that no other one has. */
const wordsOf = (text) => text.match(/\s*\S+\s*/g) ?? [];

const isSame = (one, other) => one.trim() === other.trim();

/** The length of the longest common sequence of the words from i and from j on. */
function lengths(left, right) {
  const table = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      table[i][j] = isSame(left[i], right[j]) ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  return table;
}

/** Neighbours that are both changed, or both not, as one piece. */
function joined(words) {
  const pieces = [];
  for (const [text, isChanged] of words) {
    const last = pieces.at(-1);
    if (last?.isChanged === isChanged) last.text += text;
    else pieces.push({ text, isChanged });
  }
  return pieces;
}
