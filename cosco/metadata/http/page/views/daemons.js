// All daemons, those first that have most of something: what a number of the cluster is made of.

import { get, query, repeat } from "../api.js";
import { h, put, segment } from "../dom.js";
import { MADE, TOLD, memoryInWords, memoryOfDaemon } from "../figures.js";
import { percent, plural, whole } from "../format.js";
import { chip, field, memoryBar, memoryLegend, pager, rows, table } from "../parts.js";

const PAGE = 25;
const AGAIN_MS = 2000;
const ORDERS = {
  memory_used_bytes: "Memory in use",
  assignments: "Assignments",
  ...Object.fromEntries(Object.entries(TOLD).map(([name, one]) => [name, one.label])),
};

export const title = () => "Daemons";

export function open(place, { feed, failed }, _, parameters) {
  const asked = parameters.get("by");
  const by = h(
    "select",
    { id: "by" },
    Object.entries(ORDERS).map(([name, label]) =>
      h("option", { value: name, selected: name === asked }, label),
    ),
  );
  const state = h(
    "select",
    { id: "state" },
    ["", "serving", "draining", "dead"].map((one) =>
      h("option", { value: one, selected: one === parameters.get("state") }, one || "any"),
    ),
  );
  const prefix = h("input", {
    type: "search",
    id: "prefix",
    autocomplete: "off",
    spellcheck: "false",
  });
  const about = h("p", { class: "help" });
  const failure = h("p", { class: "failure", role: "alert" });
  const frame = h("div");
  let list = null;
  let listed = "";
  let before = new Map();
  const pages = pager(() => again.now());
  const form = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Daemons" },
    field("Those first that have most", by),
    field("State", state),
    field("Address begins with", prefix),
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    pages.restart();
    again.now();
  });
  place.append(form, about, failure, frame, pages.node, memoryLegend());

  function columns() {
    const told = TOLD[by.value];
    return [
      { title: "Address" },
      { title: "State" },
      { title: "Memory" },
      ...(told?.rate ? [{ title: `${told.label}, now`, number: true, figure: told }] : []),
      ...(told
        ? [
            {
              title: told.rate ? "Since its start" : told.label,
              number: true,
              figure: told.rate ? null : told,
            },
          ]
        : []),
      ...(told ? [{ title: "Share", number: true }] : []),
      { title: "Assignments", number: true },
    ];
  }

  // A table has the columns of what it is ordered by.
  function remade() {
    if (listed === by.value) return;
    listed = by.value;
    list = table(`Daemons, those first that have most: ${ORDERS[listed]}`, columns());
    frame.replaceChildren(list.node);
    before = new Map();
    const made = Object.values(MADE).find((one) => one.by === listed);
    put(about, (TOLD[listed] ?? made)?.meaning ?? "");
  }

  function row(one) {
    const told = TOLD[listed];
    const parts = {
      state: chip(),
      bar: memoryBar(),
      memory: h("span", { class: "help" }),
      rate: number(),
      total: number(),
      share: number(),
      assignments: number(),
    };
    const line = h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        h("a", { class: "address", href: `#/daemons/${segment(one.address)}` }, one.address),
      ),
      h("td", {}, parts.state.node),
      h("td", { class: "memory" }, parts.bar.node, parts.memory),
      told?.rate ? parts.rate : null,
      told ? parts.total : null,
      told ? parts.share : null,
      parts.assignments,
    );
    line.parts = parts;
    return line;
  }

  function fill(line, one) {
    const { parts } = line;
    const figures = one.figures ?? {};
    const told = TOLD[listed];
    parts.state.set(one.state);
    parts.bar.set(memoryOfDaemon(one));
    put(parts.memory, memoryInWords(one));
    put(parts.assignments, whole(one.assignments));
    if (!told) return;
    const value = figures[listed] ?? NaN;
    put(parts.total, told.total(value));
    const now_s = performance.now() / 1000;
    const was = before.get(one.incarnation);
    if (told.rate) {
      const rate =
        was && now_s > was.at_s ? Math.max(0, value - was.value) / (now_s - was.at_s) : NaN;
      put(parts.rate, told.rate(rate));
      const all = feed.rate(listed);
      put(parts.share, all > 0 ? percent(Math.min(1, rate / all)) : "–");
    } else {
      const all = feed.value(listed);
      put(parts.share, all > 0 ? percent(Math.min(1, value / all)) : "–");
    }
    // As far back as the rates of all together.
    if (!was || now_s - was.at_s > 5) before.set(one.incarnation, { at_s: now_s, value });
  }

  const again = repeat(async (over) => {
    try {
      const page = await get(
        query("daemons", {
          order: by.value,
          state: state.value,
          prefix: prefix.value,
          cursor: pages.cursor,
          limit: PAGE,
        }),
      );
      if (over.aborted) return;
      put(failure, "");
      remade();
      rows(list, page.daemons, (one) => one.incarnation, row, fill, "No daemon fits.");
      pages.set(page.next, plural(page.daemons.length, "daemon"));
    } catch (error) {
      if (!over.aborted) failed(failure, error);
    }
  }, AGAIN_MS);
  return () => again.stop();
}

const number = () => h("td", { class: "number" });
