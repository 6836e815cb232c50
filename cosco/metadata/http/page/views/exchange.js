// One exchange: how far it is, how large its partitions are, who waits for whom.

import { close as closeIt, may } from "../actions.js";
import { get, repeat } from "../api.js";
import { sizeBars } from "../chart.js";
import { attr, h, keyed, put, segment } from "../dom.js";
import { bytes, clock, count, digits, plural, seconds, times, whole } from "../format.js";
import { card, chip, progress, rows, stat, stats, table } from "../parts.js";

const AGAIN_MS = 2000;
const METRIC = "none: the metadata service knows it of this exchange alone";
const FIGURES = {
  rows: { label: "Rows", meaning: "Rows of the mappers that have committed.", metric: METRIC },
  raw: { label: "Bytes", meaning: "Their bytes before compression.", metric: METRIC },
  stored: { label: "Compressed", meaning: "Their bytes as they are stored.", metric: METRIC },
  skew: {
    label: "Skew",
    metric: METRIC,
    meaning:
      "How many times the mean the largest partition has. Its reducer works that much longer.",
  },
  rebuilds: {
    label: "Rebuilds",
    metric: "cosco_rebuilds_total, of all exchanges",
    meaning: "How often a range was begun anew, as rows of it were lost.",
  },
  losses: {
    label: "Losses",
    metric: "cosco_losses_total, of all exchanges",
    meaning: "Losses of rows that are not repaired; of an exchange that has ended, all it had.",
  },
};

export const title = (shuffleId) => shuffleId;

export function open(place, { who, failed, tell }, shuffleId) {
  const failure = h("p", { class: "failure", role: "alert" });
  const state = chip();
  const facts = h("p", { class: "help" });
  const button = h("button", { type: "button", class: "danger", hidden: true }, "Close");
  // What a number of this exchange is made of is on this page.
  const shows = (name) => () =>
    goTo({ losses: waits, rebuilds: unusual.node }[name] ?? largest.node);
  const committed = progress("Mappers that have committed");
  const made = Object.fromEntries(
    Object.entries(FIGURES).map(([name, one]) => [name, stat(one, shows(name))]),
  );
  const bars = sizeBars(bytes);
  const log = h("button", { type: "button", "aria-pressed": "false" }, "Logarithmic");
  const skew = h("p", {});
  const shares = h("p", { class: "help" });
  const largest = table("The largest partitions", [
    { title: "Partition" },
    { title: "Rows", number: true },
    { title: "Bytes", number: true },
    { title: "Of the mean", number: true },
  ]);
  const waits = h("ul", { class: "waits", tabindex: "-1" });
  const daemons = table("Assignments by daemon, in partition ranges", [
    { title: "Daemon" },
    { title: "State" },
    { title: "Primary", number: true },
    { title: "Replica", number: true },
    { title: "Sealed", number: true },
  ]);
  const unusual = table("Ranges that are sealed, were built anew, or have fewer copies", [
    { title: "Range" },
    { title: "Partitions" },
    { title: "Build", number: true },
    { title: "Epoch", number: true },
    { title: "Copies", number: true },
    { title: "What is unusual" },
  ]);
  const sizes = card("Sizes of partitions", skew, bars.node, h("p", {}, log), shares, largest.node);
  sizes.classList.add("wide");
  const unusualCard = card("Unusual ranges", unusual.node);
  unusualCard.classList.add("wide");
  const daemonsCard = card("Daemons", daemons.node);
  const body = h(
    "div",
    { class: "grid", hidden: true },
    h(
      "div",
      { class: "column" },
      card(
        "Progress",
        h("p", {}, state.node, " ", facts),
        committed.node,
        stats(...Object.values(made)),
        button,
      ),
    ),
    h("div", { class: "column" }, card("Who waits for whom", waits), daemonsCard),
    sizes,
    unusualCard,
  );
  place.append(
    h("p", { class: "crumbs" }, h("a", { href: "#/exchanges" }, "All exchanges")),
    failure,
    body,
  );

  let isLog = false;
  let last = null;
  log.addEventListener("click", () => {
    isLog = !isLog;
    attr(log, "aria-pressed", String(isLog));
    if (last?.sizes) bars.set(last.sizes, isLog);
  });
  button.addEventListener("click", () =>
    closeIt(shuffleId, (text) => {
      tell(text);
      again.now();
    }),
  );
  function draw(now) {
    last = now;
    body.hidden = false;
    state.set(now.state);
    put(facts, factsOf(now));
    button.hidden = now.state !== "open" || !may(who, "tenant");
    const known = Math.max(now.group_mappers, now.mappers_opened, now.mappers_committed);
    const of = now.state === "open" ? ` of ${plural(known, "mapper")} known so far` : "";
    committed.set(
      now.mappers_committed,
      now.state === "open" ? known : 0,
      `${whole(now.mappers_committed)}${of || " mappers"} committed`,
    );
    committed.node.firstChild.hidden = now.state !== "open";
    made.rows.set(count(now.rows));
    made.raw.set(bytes(now.raw_bytes));
    made.stored.set(
      now.stored_bytes
        ? `${bytes(now.stored_bytes)}, ${digits(now.raw_bytes / now.stored_bytes)} to 1`
        : bytes(0),
    );
    made.skew.set(now.sizes?.skew ? times(now.sizes.skew) : "–");
    made.rebuilds.set(whole(now.rebuilds));
    made.losses.set(whole(now.losses_count));
    drawSizes(now);
    drawWaits(now);
    daemonsCard.hidden = !now.daemons.length;
    rows(daemons, now.daemons, (one) => one.incarnation, shareRow, fillShare);
    unusualCard.hidden = !now.unusual.length;
    rows(
      unusual,
      now.unusual,
      (one) => one.range_index,
      cells("tnnnt"),
      (line, one) =>
        say(line, [one.range_index, span(one), one.build, one.epoch, one.copies, why(one, now)]),
    );
  }

  function drawSizes(now) {
    sizes.hidden = !now.sizes;
    if (!now.sizes) return;
    bars.node.hidden = log.hidden = shares.hidden = !now.sizes.largest_bytes;
    bars.set(now.sizes, isLog);
    put(skew, inWords(now));
    const told = [
      ["smallest", "smallest_bytes"],
      ["median", "median_bytes"],
      ["90 %", "p90_bytes"],
      ["99 %", "p99_bytes"],
      ["largest", "largest_bytes"],
    ].filter(([, name]) => now.sizes[name] !== null);
    put(
      shares,
      `${told.map(([name, key]) => `${name} ${bytes(now.sizes[key])}`).join(", ")}; ` +
        `${plural(now.empty_partitions, "partition")} empty`,
    );
    rows(
      largest,
      now.largest,
      (one) => one.partition,
      cells("nnn"),
      (line, one) =>
        say(line, [
          one.partition,
          count(one.rows),
          bytes(one.raw_bytes),
          times(one.raw_bytes / now.sizes.mean_bytes),
        ]),
      "No rows yet.",
    );
  }

  function drawWaits(now) {
    keyed(
      waits,
      waitsOf(now),
      (one) => one,
      (one) => h("li", {}, one),
    );
  }

  const again = repeat(async (over) => {
    try {
      const found = await get(`exchanges/${segment(shuffleId)}`);
      if (over.aborted) return;
      put(failure, "");
      draw(found);
    } catch (error) {
      if (!over.aborted) failed(failure, error);
    }
  }, AGAIN_MS);
  return () => again.stop();
}

function factsOf(now) {
  const said = [
    now.tenant && `of tenant ${now.tenant}`,
    now.group_id && `in group ${now.group_id}`,
    now.application_id && `of application ${now.application_id}`,
    plural(now.partitions, "partition"),
    now.replicas && plural(now.replicas, "copy", "copies"),
    now.codec && `codec ${now.codec}`,
    now.created_s && `since ${clock(now.created_s)}`,
    now.closed_s && `until ${clock(now.closed_s)}`,
    now.closed_s && now.created_s && `for ${seconds(now.closed_s - now.created_s)}`,
    now.cause && `closed: ${now.cause}`,
    now.state === "open" && `driver heard ${seconds(now.heard_s)} ago`,
  ];
  return said.filter(Boolean).join(", ");
}

// Skew in words: what the largest partition means for the job.
function inWords({ sizes, partitions }) {
  if (!sizes.largest_bytes) return "No rows are committed yet.";
  const { skew } = sizes;
  const all = plural(partitions, "partition");
  if (skew < 1.5) return `The ${all} are even: the largest has ${times(skew)} the mean.`;
  const largest = `The largest of ${all} has ${digits(skew)} times the mean`;
  if (skew < 3) return `${largest}: somewhat uneven.`;
  return `${largest}: skewed. Its reducer has ${digits(skew)} times the work of a mean one.`;
}

function goTo(part) {
  const card = part.closest(".card");
  if (card.hidden) return;
  card.scrollIntoView({ block: "start" });
  part.focus({ preventScroll: true });
}

// Sentences of what is waited for; nothing else says that the exchange is stuck.
function waitsOf(now) {
  const said = [];
  for (const party of now.waiting_for) said.push(`It closes once ${party} has deleted its files.`);
  for (const loss of now.losses) {
    const where = loss.ranges_count
      ? `ranges ${loss.ranges.join(", ")}${loss.ranges_count > loss.ranges.length ? ", …" : ""}`
      : "all ranges";
    const state = {
      open: "its driver has been called and has not answered",
      arranged: "its driver has them run again",
      failed: `nobody has them run: ${loss.failure}`,
    };
    said.push(
      `Readers of ${where} wait for ${plural(loss.mappers, "mapper")} called back ` +
        `(loss ${loss.loss_id}: ${loss.reason}): ${state[loss.state]}.`,
    );
  }
  for (const one of now.unusual.filter((range) => range.sealed)) {
    said.push(
      `Writers to range ${one.range_index} (${span(one)}) wait for its next epoch` +
        `${one.waiting_for ? `: ${one.waiting_for}` : ""}.`,
    );
  }
  for (const one of now.failures) {
    said.push(`Range ${one.range_index} has failed for good (${one.error}): ${one.reason}`);
  }
  if (now.contradicted.length) {
    said.push(
      `Mappers ${now.contradicted.slice(0, 20).join(", ")} committed two different things, and ` +
        "cannot be read.",
    );
  }
  if (said.length) return said;
  if (now.state === "finished") return ["It has finished."];
  if (now.state === "closing") return ["It is closing."];
  const open = Math.max(0, Math.max(now.group_mappers, now.mappers_opened) - now.mappers_committed);
  return [
    open ? `Readers wait for ${plural(open, "mapper")} to commit.` : "Nobody waits for anybody.",
  ];
}

const span = (one) =>
  one.count === 1
    ? `partition ${one.first}`
    : `partitions ${one.first} to ${one.first + one.count - 1}`;

function why(one, now) {
  const said = [];
  if (one.sealed) said.push(one.waiting_for ? `sealed, waits: ${one.waiting_for}` : "sealed");
  if (one.build > 1) said.push(`built ${one.build} times`);
  if (one.copies < now.replicas)
    said.push(`${plural(one.copies, "copy", "copies")} of ${now.replicas}`);
  return said.join("; ");
}

// What makes a row: a name, then cells of numbers (n) or of text (t).
const cells = (kinds) => () =>
  h(
    "tr",
    {},
    h("th", { scope: "row" }),
    [...kinds].map((kind) => h("td", { class: kind === "n" ? "number" : null })),
  );

const say = (line, texts) => texts.forEach((text, i) => put(line.children[i], text));

function shareRow(one) {
  const line = cells("tnnn")();
  line.children[0].replaceWith(
    h(
      "th",
      { scope: "row" },
      h("a", { class: "address", href: `#/daemons/${segment(one.address)}` }, one.address),
    ),
  );
  line.state = chip();
  line.children[1].replaceWith(h("td", {}, line.state.node));
  return line;
}

function fillShare(line, one) {
  line.state.set(one.state);
  [one.primary, one.replica, one.sealed].forEach((value, i) =>
    put(line.children[i + 2], whole(value)),
  );
}
