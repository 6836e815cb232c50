// The whole cluster: what it does to the disks, what memory is for, what happens.

import { get, repeat } from "../api.js";
import { chart } from "../chart.js";
import { h, keyed, put, segment } from "../dom.js";
import { eventLine } from "./events.js";
import {
  COUNTED,
  MADE,
  memoryInWords,
  memoryOf,
  memoryOfDaemon,
  spindleSeconds,
} from "../figures.js";
import { bytes, bytesPerSecond, digits, secondsPerSecond, whole } from "../format.js";
import { card, chip, memoryBar, memoryLegend, stat, stats } from "../parts.js";

const SHOWN_DAEMONS = 8;
const SHOWN_EVENTS = 6;
const DAEMONS_MS = 2000;

export const title = () => "Cluster";

export function open(place, { feed, failed }) {
  const counted = Object.entries(COUNTED).map(([name, figure]) => [
    name,
    stat(figure, figure.href),
  ]);
  const made = Object.fromEntries(
    Object.entries(MADE).map(([name, figure]) => [
      name,
      stat(figure, `#/daemons?by=${figure.by}`, {
        large: LARGE.has(name),
        swatch: SWATCHES[name] ?? null,
      }),
    ]),
  );
  const charts = CHARTS.map(([name, lines, say, options]) => chart(name, lines, say, options));
  const [rows, disks, store, pressure] = charts;

  const whole_bar = memoryBar();
  const free = h("p", { class: "help" });
  const list = h("ul", { class: "daemons" });
  const more = h("a", { href: "#/daemons" }, "All daemons");
  const failure = h("p", { class: "failure", role: "alert" });
  const latest = h("ol", { class: "events short", reversed: true });

  place.append(
    h("div", { class: "strip" }, stats(...counted.map(([, one]) => one))),
    h(
      "div",
      { class: "grid" },
      card(
        "Rows in and out",
        stats(made.received, made.sent, made.rows_received, made.rows_fetched),
        rows.node,
      ),
      card(
        "What a spindle would have needed",
        stats(made.spindle_writes, made.spindle_reads),
        disks.node,
      ),
      card(
        "Reads and writes of the store",
        stats(made.writes, made.write_size, made.reads, made.read_size, made.amplification),
        store.node,
      ),
      card("Back-pressure", stats(made.waited, made.waiting), pressure.node),
      card(
        "Memory",
        whole_bar.node,
        free,
        memoryLegend(),
        h("h3", {}, "Fullest daemons"),
        list,
        failure,
        h("p", {}, more),
      ),
      card("Latest events", latest, h("p", {}, h("a", { href: "#/events" }, "All events"))),
    ),
  );

  function drawCounts() {
    if (!feed.figures) return;
    for (const [name, one] of counted) one.set(whole(feed.figures[name]));
    drawMemory();
  }

  function drawMemory() {
    const { memory_bytes, memory_free_bytes } = feed.figures;
    const copies = feed.value("copies_bytes") || 0;
    const memory = memoryOf(memory_bytes, memory_free_bytes, copies, feed.value("waiting_bytes"));
    whole_bar.set(memory);
    const used = memory.buffers + memory.copies;
    free.textContent = `${bytes(used)} of ${bytes(memory_bytes)} in use by all daemons together`;
  }

  function drawTotals() {
    if (document.hidden) return;
    for (const [name, one] of Object.entries(made)) one.set(MADE[name].say(MADE[name].of(feed)));
    for (const one of charts) one.set(feed);
    if (feed.figures) drawMemory();
  }

  function drawEvents() {
    keyed(
      latest,
      feed.events.filter((one) => one.severity !== "debug").slice(0, SHOWN_EVENTS),
      (one) => one.sequence,
      eventLine,
    );
  }

  const daemons = repeat(async (over) => {
    try {
      const page = await get(`daemons?order=memory_used_bytes&limit=${SHOWN_DAEMONS}`);
      if (over.aborted) return;
      failure.textContent = "";
      const living = page.daemons.filter((one) => one.state !== "dead");
      keyed(
        list,
        living,
        (one) => one.incarnation,
        daemonLine,
        (line, one) => line.set(one),
      );
    } catch (error) {
      if (!over.aborted) failed(failure, error);
    }
  }, DAEMONS_MS);

  const over = new AbortController();
  const on = (kind, act) => feed.addEventListener(kind, act, { signal: over.signal });
  on("figures", drawCounts);
  on("totals", drawTotals);
  on("events", drawEvents);
  drawCounts();
  drawTotals();
  drawEvents();
  return () => {
    over.abort();
    daemons.stop();
  };
}

const LARGE = new Set(["received", "sent", "spindle_writes", "spindle_reads", "waited"]);
const SWATCHES = {
  received: "one",
  sent: "two",
  spindle_writes: "one",
  spindle_reads: "two",
  writes: "one",
  reads: "two",
  waited: "three",
};
const CHARTS = [
  [
    "Rows in and out",
    [
      { label: "In", swatch: "one", of: (f) => f.rate("bytes_received") },
      {
        label: "Out",
        swatch: "two",
        of: (f) => f.rate("bytes_fetched") + f.rate("bytes_referenced"),
      },
    ],
    bytesPerSecond,
    { isBytes: true },
  ],
  [
    "Spindles that would be busy",
    [
      {
        label: "Writes",
        swatch: "one",
        of: (f) => spindleSeconds(f.rate("writes"), f.rate("write_bytes")),
      },
      {
        label: "Reads",
        swatch: "two",
        of: (f) => spindleSeconds(f.rate("reads"), f.rate("read_bytes")),
      },
    ],
    digits,
    { stacked: true },
  ],
  [
    "Bytes written to the store and read from it",
    [
      { label: "Written", swatch: "one", of: (f) => f.rate("write_bytes") },
      { label: "Read", swatch: "two", of: (f) => f.rate("read_bytes") },
    ],
    bytesPerSecond,
    { isBytes: true },
  ],
  [
    "Seconds that writers waited, each second",
    [{ label: "Waited", swatch: "three", of: (f) => f.rate("waited_s") }],
    secondsPerSecond,
    {},
  ],
];

// One daemon of a list, with its memory.
export function daemonLine(one) {
  const bar = memoryBar();
  const state = chip();
  const words = h("span", { class: "help" });
  const line = h(
    "li",
    {},
    h("a", { href: `#/daemons/${segment(one.address)}` }, one.address),
    " ",
    state.node,
    words,
    bar.node,
  );
  line.set = (now) => {
    bar.set(memoryOfDaemon(now));
    state.set(now.state);
    put(words, memoryInWords(now));
  };
  return line;
}
