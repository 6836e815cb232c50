// What has happened, as it happens, with the reasons.

import { attr, h, keyed, put, segment } from "../dom.js";
import { bytes, clock, plural, seconds, words } from "../format.js";
import { field } from "../parts.js";

const RANKS = { debug: 0, info: 1, warning: 2, error: 3 };
const SIGNS = { debug: "·", info: "i", warning: "!", error: "✕" };
const STEP = 100;

export const title = () => "Events";

export function open(place, { feed }, _, parameters) {
  const severity = h(
    "select",
    { id: "severity" },
    Object.keys(RANKS).map((one) =>
      h("option", { value: one, selected: one === (parameters.get("severity") ?? "info") }, one),
    ),
  );
  const text = h("input", {
    type: "search",
    id: "text",
    autocomplete: "off",
    spellcheck: "false",
    value: parameters.get("text") ?? "",
  });
  const pause = h("button", { type: "button", "aria-pressed": "false" }, "Pause");
  const said = h("p", { class: "help", role: "status", "aria-live": "polite" });
  const list = h("ol", { class: "events", "aria-label": "Events, the newest first" });
  const more = h("button", { type: "button" }, `Show ${STEP} more`);
  const form = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Events" },
    field("At least", severity),
    field("With the text", text),
    pause,
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  let limit = STEP;
  let held = null;

  function draw() {
    const all = held ?? feed.events;
    const wanted = text.value.trim().toLowerCase();
    const found = all.filter(
      (one) =>
        RANKS[one.severity] >= RANKS[severity.value] && (!wanted || searched(one).includes(wanted)),
    );
    keyed(list, found.slice(0, limit), (one) => one.sequence, eventLine);
    more.hidden = found.length <= limit;
    put(said, found.length ? plural(found.length, "event") : "No event fits.");
  }

  form.addEventListener("input", draw);
  pause.addEventListener("click", () => {
    held = held ? null : feed.events;
    attr(pause, "aria-pressed", String(Boolean(held)));
    put(pause, held ? "Go on" : "Pause");
    draw();
  });
  more.addEventListener("click", () => {
    limit += STEP;
    draw();
  });
  place.append(form, said, list, h("p", {}, more));
  const over = new AbortController();
  feed.addEventListener("events", draw, { signal: over.signal });
  draw();
  return () => over.abort();
}

// One event as a line: when, how severe, what, whom it is about, why.
export function eventLine(one) {
  const f = one.fields;
  return h(
    "li",
    { "data-severity": one.severity },
    h("time", { datetime: new Date(one.time_s * 1000).toISOString() }, clock(one.time_s)),
    h("span", { class: "sign", role: "img", "aria-label": one.severity }, SIGNS[one.severity]),
    h("div", {}, h("strong", {}, words(one.event)), about(f), reason(f), rest(f)),
  );
}

function about(f) {
  const found = [];
  if (f.exchange) {
    found.push(h("a", { href: `#/exchanges/${segment(f.exchange)}` }, f.exchange));
  }
  const address = f.daemon ?? f.address;
  if (address) {
    found.push(f.daemon ? h("a", { href: `#/daemons/${segment(address)}` }, address) : address);
  }
  if (f.group) found.push(`group ${f.group}`);
  if (f.application) found.push(`application ${f.application}`);
  return found.flatMap((one, i) => [i ? ", " : " ", one]);
}

function reason(f) {
  const said = [f.cause, f.reason].filter(Boolean);
  return said.length ? h("span", { class: "reason" }, `: ${said.join("; ")}`) : null;
}

// What is said beside, of the fields that are numbers of something.
const COUNTS = {
  ranges: ["range"],
  mappers: ["mapper"],
  partitions: ["partition"],
  rows: ["row"],
  exchanges: ["exchange"],
  replicas: ["replica"],
};
const NAMES = [
  "range",
  "epoch",
  "build",
  "generation",
  "store",
  "host_id",
  "tenant",
  "http",
  "version",
];

function rest(f) {
  const said = Object.entries(COUNTS)
    .filter(([name]) => f[name])
    .map(([name, [one]]) => plural(f[name], one));
  for (const name of NAMES)
    if (f[name] !== undefined) said.push(`${name.replace("_id", "")} ${f[name]}`);
  if (f.bytes !== undefined) said.push(bytes(f.bytes));
  if (f.seconds !== undefined) said.push(seconds(f.seconds));
  if (f.times) said.push(`${f.times} times`);
  return said.length ? h("span", { class: "rest" }, said.join(", ")) : null;
}

function searched(one) {
  one.searched ??=
    `${words(one.event)} ${one.event} ${Object.values(one.fields).join(" ")}`.toLowerCase();
  return one.searched;
}
