// Numbers, times and names as people read them.

const WHOLE = new Intl.NumberFormat("en");
const SOME = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const count = (number) => WHOLE.format(number);
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
/** a number with three digits that count */
export const some = (number) => SOME.format(number);
export const percent = (p) => (p === null || p === undefined ? "" : `${Math.round(p * 100)} %`);
export const rate = (perSecond) => (perSecond === null || perSecond === undefined ? "–" : `${SOME.format(perSecond)}/s`);
export const time = (text) => (text ? CLOCK.format(new Date(text)) : "–");
/** "low_match" as words */
export const words = (name) => String(name).replaceAll("_", " ");

/** Seconds as the two largest of days, hours, minutes and seconds. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1 && seconds > 0) return "< 1 s";
  let rest = Math.round(seconds);
  const parts = [];
  for (const [name, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (rest >= size) parts.push(`${Math.floor(rest / size)} ${name}`);
    rest %= size;
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}

/** Bytes in binary units. */
export function bytes(number) {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (number >= 1024 && power < names.length - 1) {
    number /= 1024;
    power += 1;
  }
  return `${SOME.format(number)} ${names[power]}`;
}
