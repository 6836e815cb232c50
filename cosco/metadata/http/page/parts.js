// Parts that several views are made of.

import { attr, h, keyed, put } from "./dom.js";
import { bytes, percent } from "./format.js";
import { MEMORY } from "./figures.js";
import { tip } from "./tips.js";

// A number with its name and note. `target`: the address of what it is made of, or what shows that.
// Returns {node, set(text)}.
export function stat(figure, target, { large = false, swatch = null } = {}) {
  const value = valueOf(target);
  const node = h(
    "div",
    { class: large ? "stat large" : "stat" },
    h(
      "dt",
      {},
      swatch && h("span", { class: `swatch ${swatch}`, "aria-hidden": "true" }),
      figure.label,
      " ",
      tip(figure),
    ),
    h("dd", {}, value),
  );
  return { node, set: (text) => put(value, text) };
}

function valueOf(target) {
  if (!target) return h("span", {}, "–");
  if (typeof target === "string") return h("a", { href: target }, "–");
  return h("button", { type: "button", class: "plain", on: { click: target } }, "–");
}

// A list of those.
export const stats = (...list) =>
  h(
    "dl",
    { class: "stats" },
    list.map((one) => one.node),
  );

// A part of a page with a heading of its own.
export function card(title, ...children) {
  const heading = h("h2", {}, title);
  return h("section", { class: "card", "aria-label": title }, heading, ...children);
}

// Memory as one bar of what it is for. Returns {node, set(memory)}.
export function memoryBar() {
  const pieces = Object.keys(MEMORY).map((name) => h("span", { class: `piece ${name}` }));
  const node = h("div", { class: "bar", role: "img" }, pieces);
  let said = "";
  return {
    node,
    set(memory) {
      const whole = Object.values(memory).reduce((sum, one) => sum + one, 0) || 1;
      Object.keys(MEMORY).forEach((name, i) => {
        pieces[i].style.width = `${(100 * memory[name]) / whole}%`;
        pieces[i].classList.toggle("some", memory[name] > 0);
      });
      const text = Object.entries(MEMORY)
        .map(([name, one]) => `${one.label} ${bytes(memory[name])}`)
        .join(", ");
      if (text !== said) attr(node, "aria-label", text);
      said = text;
    },
  };
}

// What the colours of such bars mean, each with its note.
export function memoryLegend() {
  return h(
    "ul",
    { class: "legend" },
    Object.entries(MEMORY).map(([name, figure]) =>
      h(
        "li",
        {},
        h("span", { class: `swatch ${name}`, "aria-hidden": "true" }),
        h("a", { href: `#/daemons?by=${figure.by}` }, figure.label),
        " ",
        tip(figure),
      ),
    ),
  );
}

// A table. `columns`: [{title, number, figure, width}]. Returns {node, body, caption}.
export function table(caption, columns) {
  const head = h(
    "tr",
    {},
    columns.map((one) =>
      h(
        "th",
        { scope: "col", class: one.number ? "number" : null },
        one.title,
        one.figure ? [" ", tip(one.figure)] : null,
      ),
    ),
  );
  const body = h("tbody");
  const told = h("caption", {}, caption);
  const node = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, told, h("thead", {}, head), body),
  );
  return { node, body, caption: told };
}

// Rows of a table: `cells(row)` makes them once, `update(row, item)` says what they say.
export function rows(of, items, keyOf, make, update, nothing = "Nothing") {
  if (!items.length) {
    const columns = of.node.querySelectorAll("thead th").length;
    keyed(
      of.body,
      [nothing],
      (text) => `- ${text}`,
      (text) => h("tr", { class: "nothing" }, h("td", { colspan: columns }, text)),
    );
    return;
  }
  keyed(of.body, items, keyOf, make, update);
}

// The state of a daemon or an exchange, with a sign that is no colour.
const SIGNS = {
  serving: "●",
  open: "●",
  draining: "◐",
  closing: "◐",
  dead: "✕",
  finished: "✓",
};
export function chip() {
  const node = h("span", { class: "chip" });
  return {
    node,
    set(state) {
      attr(node, "data-state", state);
      put(node, `${SIGNS[state] ?? "○"} ${state}`);
    },
  };
}

// How far something is: a bar with words beside it. Returns {node, set(done, of, text)}.
export function progress(label) {
  const bar = h("progress", { max: "1", value: "0", "aria-label": label });
  const words = h("span", {});
  return {
    node: h("div", { class: "progress" }, bar, words),
    set(done, of, text) {
      const share = of > 0 ? Math.min(1, done / of) : 0;
      attr(bar, "value", share);
      put(words, of > 0 ? `${text} (${percent(share)})` : text);
    },
  };
}

// Buttons for the pages of a list that goes on by cursors. Returns {node, cursor, restart(),
// set(next, text)}.
export function pager(load) {
  const before = [];
  let cursor = "";
  let next = null;
  const go = (to) => {
    cursor = to;
    load();
  };
  const first = h(
    "button",
    {
      type: "button",
      on: {
        click: () => {
          before.length = 0;
          go("");
        },
      },
    },
    "First",
  );
  const back = h("button", { type: "button", on: { click: () => go(before.pop() ?? "") } }, "Back");
  const on = h(
    "button",
    {
      type: "button",
      on: {
        click: () => {
          before.push(cursor);
          go(next);
        },
      },
    },
    "Next",
  );
  const words = h("span", { role: "status" });
  const node = h("div", { class: "pager" }, first, back, on, words);
  return {
    node,
    get cursor() {
      return cursor;
    },
    restart() {
      before.length = 0;
      cursor = "";
    },
    set(following, text) {
      next = following;
      first.disabled = back.disabled = !cursor;
      on.disabled = !next;
      put(words, text);
    },
  };
}

// A control with its name.
export function field(label, control) {
  return h("label", {}, h("span", {}, label), control);
}
