// One address: the daemon there, and those that were there before and are named still.

import { drain, may, undrain } from "../actions.js";
import { get, query, repeat } from "../api.js";
import { h, keyed, put } from "../dom.js";
import { eventLine } from "./events.js";
import { TOLD, memoryOf } from "../figures.js";
import { bytes, plural } from "../format.js";
import { card, chip, memoryBar, memoryLegend, rows, table } from "../parts.js";

const AGAIN_MS = 2000;
const SHOWN_EVENTS = 30;

export const title = (address) => address;

export function open(place, context, address) {
  const { feed, failed, tell } = context;
  const failure = h("p", { class: "failure", role: "alert" });
  const starts = h("div", { class: "starts" });
  const latest = h("ol", { class: "events" });
  const heard = card("Its events", latest);
  place.append(
    h("p", { class: "crumbs" }, h("a", { href: "#/daemons" }, "All daemons")),
    failure,
    starts,
    heard,
  );

  const again = repeat(async (over) => {
    try {
      const page = await get(
        query("daemons", { prefix: address, order: "assignments", limit: 100 }),
      );
      if (over.aborted) return;
      const found = page.daemons.filter((one) => one.address === address);
      found.sort((a, b) => (a.state === "dead") - (b.state === "dead"));
      put(
        failure,
        found.length ? "" : `There is no daemon at ${address}, and no open exchange names one.`,
      );
      keyed(
        starts,
        found,
        (one) => one.incarnation,
        (one) => made(one, context, () => again.now()),
        (section, one) => section.set(one),
      );
    } catch (error) {
      if (!over.aborted) failed(failure, error);
    }
  }, AGAIN_MS);

  function drawEvents() {
    const its = feed.events.filter(
      (one) => one.fields.daemon === address || one.fields.address === address,
    );
    keyed(latest, its.slice(0, SHOWN_EVENTS), (one) => one.sequence, eventLine);
    heard.hidden = !its.length;
  }

  const over = new AbortController();
  feed.addEventListener("events", drawEvents, { signal: over.signal });
  drawEvents();
  return () => {
    over.abort();
    again.stop();
  };

  function made(one, { who }, changed) {
    const state = chip();
    const bar = memoryBar();
    const words = h("p", { class: "help" });
    const facts = h("dl", { class: "facts" });
    const told = (text) => {
      tell(text);
      changed();
    };
    const toDrain = h(
      "button",
      { type: "button", on: { click: () => drain(address, told) } },
      "Drain",
    );
    const toUndrain = h(
      "button",
      { type: "button", on: { click: () => undrain(address, told) } },
      "Undrain",
    );
    const buttons = h("div", { class: "buttons" }, toDrain, toUndrain);
    const figures = table("What it has done since its start, and holds now", [
      { title: "Figure" },
      { title: "Now", number: true },
      { title: "Since its start", number: true },
      { title: "Prometheus" },
    ]);
    const section = card(
      one.state === "dead" ? "A start that is gone" : "The daemon",
      h("p", {}, state.node),
      buttons,
      bar.node,
      words,
      memoryLegend(),
      facts,
      figures.node,
    );
    let was = null;
    section.set = (now) => {
      state.set(now.state);
      const isAlive = now.state !== "dead";
      toDrain.hidden = now.state !== "serving";
      toUndrain.hidden = now.state !== "draining";
      buttons.hidden = !isAlive || !may(who, "admin");
      const has = now.figures ?? {};
      bar.set(
        memoryOf(now.memory_bytes, now.memory_free_bytes, has.copies_bytes, has.waiting_bytes),
      );
      put(
        words,
        `${bytes(now.memory_bytes - now.memory_free_bytes)} of ${bytes(now.memory_bytes)} in use`,
      );
      keyed(
        facts,
        factsOf(now),
        ([name]) => name,
        ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})),
        (fact, [, text]) => put(fact.lastChild, text),
      );
      const at_s = performance.now() / 1000;
      const rate = (name) =>
        was && was.has[name] !== undefined && at_s > was.at_s
          ? Math.max(0, has[name] - was.has[name]) / (at_s - was.at_s)
          : NaN;
      rows(
        figures,
        now.figures ? Object.entries(TOLD) : [],
        ([name]) => name,
        figureRow,
        (line, [name, figure]) => {
          put(line.children[1], figure.rate ? figure.rate(rate(name)) : figure.total(has[name]));
          put(line.children[2], figure.rate ? figure.total(has[name]) : "");
        },
        "It has told no figures yet.",
      );
      if (!was || at_s - was.at_s > 5) was = { at_s, has };
    };
    return section;
  }
}

function figureRow([, figure]) {
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, figure.label, h("small", {}, figure.meaning)),
    h("td", { class: "number" }),
    h("td", { class: "number" }),
    h("td", {}, h("code", {}, figure.metric)),
  );
}

function factsOf(one) {
  const store = one.store_failing ? `${one.store_id}, which takes nothing` : one.store_id;
  return [
    ["Host", one.host_id],
    ["Store", one.store_hangs ? `${store}: a write hangs` : store],
    ["Assignments", plural(one.assignments, "in force", "in force")],
    ["Incarnation", one.incarnation],
    ["Mechanics", one.mechanics || "not told"],
    ["Version", one.version || "not told"],
    ["Metrics at", one.metrics_address || "nowhere"],
  ];
}
