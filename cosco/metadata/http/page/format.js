// Numbers as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

// Three digits that count: 0, 1.23, 12.3, 123, 1,230.
export function digits(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.005) return "< 0.01";
  const places = size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: places });
}

// 1.5 MiB
export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1023.5 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit ? digits(size) : Math.round(size)} ${UNITS[unit]}`;
}

// What is not known has no unit.
const each = (value, said) => (Number.isFinite(value) ? said : "–");

export const bytesPerSecond = (value) => each(value, `${bytes(value)}/s`);

// 12,345
export const whole = (value) =>
  Number.isFinite(value) ? Math.round(value).toLocaleString("en") : "–";

// 12.3 million
export function count(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 1e6) return whole(value);
  const [size, name] = value < 1e9 ? [1e6, "million"] : [1e9, "billion"];
  return `${digits(value / size)} ${name}`;
}

export const perSecond = (value) => each(value, `${digits(value)}/s`);

export const secondsPerSecond = (value) => each(value, `${digits(value)} s/s`);

// Seconds as 0.25 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h.
export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 60) return `${digits(value)} s`;
  const whole_s = Math.round(value);
  const [d, h, m, s] = [
    Math.floor(whole_s / 86400),
    Math.floor((whole_s % 86400) / 3600),
    Math.floor((whole_s % 3600) / 60),
    whole_s % 60,
  ];
  if (d) return h ? `${d} d ${h} h` : `${d} d`;
  if (h) return m ? `${h} h ${m} min` : `${h} h`;
  return s ? `${m} min ${s} s` : `${m} min`;
}

// 1.04×, 12.3×
export const times = (value) =>
  Number.isFinite(value)
    ? `${value < 99.5 ? value.toPrecision(value < 0.995 ? 2 : 3) : whole(value)}×`
    : "–";

export const percent = (value) => (Number.isFinite(value) ? `${Math.round(value * 100)} %` : "–");

// 14:03:27, with the day if it is not today.
export function clock(unix_s) {
  const at = new Date(unix_s * 1000);
  const time = at.toLocaleTimeString("en-GB");
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}

// "daemon_died" as "Daemon died"
export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export const plural = (n, one, many) => `${whole(n)} ${n === 1 ? one : (many ?? `${one}s`)}`;
