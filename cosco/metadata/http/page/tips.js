// What a number means and how Prometheus calls it: a button beside it, and one note for all.

import { h, newId, put } from "./dom.js";

const GAP_PX = 6;
const LEAVE_MS = 200;
const what = h("p", {});
const metric = h("code", {});
const note = h(
  "div",
  { id: "note", class: "note", popover: "manual", role: "note" },
  what,
  h("p", { class: "note-metric" }, "Prometheus: ", metric),
);
//: The button of which it tells; whether that was clicked, or is only pointed at.
let owner = null;
let isKept = false;
let timer = 0;

function show(button, figure, keep) {
  clearTimeout(timer);
  if (owner !== button) {
    hide();
    if (!note.isConnected) document.body.append(note);
    put(what, figure.meaning);
    put(metric, figure.metric);
    owner = button;
    button.setAttribute("aria-describedby", note.id);
    button.setAttribute("aria-expanded", "true");
    note.showPopover();
    place(button);
  }
  isKept = keep;
}

function hide() {
  clearTimeout(timer);
  if (!owner) return;
  owner.removeAttribute("aria-describedby");
  owner.setAttribute("aria-expanded", "false");
  owner = null;
  isKept = false;
  note.hidePopover();
}

function leave() {
  clearTimeout(timer);
  if (!isKept) timer = setTimeout(hide, LEAVE_MS);
}

function place(button) {
  const at = button.getBoundingClientRect();
  const size = note.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left - 12), window.innerWidth - size.width - 8);
  const below = at.bottom + GAP_PX;
  const fits = below + size.height < window.innerHeight;
  note.style.left = `${left}px`;
  note.style.top = `${fits ? below : Math.max(8, at.top - GAP_PX - size.height)}px`;
}

const isElsewhere = (node) => owner && !owner.contains(node) && !note.contains(node);

note.addEventListener("pointerenter", () => clearTimeout(timer));
note.addEventListener("pointerleave", leave);
window.addEventListener("scroll", hide, { passive: true });
window.addEventListener("hashchange", hide);
document.addEventListener("pointerdown", (event) => isElsewhere(event.target) && hide());
document.addEventListener("focusin", (event) => isElsewhere(event.target) && hide());
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());

// Return the button of a figure, which has `label`, `meaning` and `metric`.
export function tip(figure) {
  const button = h(
    "button",
    {
      type: "button",
      class: "tip",
      id: newId("tip"),
      "aria-expanded": "false",
      "aria-label": `What “${figure.label}” means`,
    },
    h("span", { "aria-hidden": "true" }, "?"),
  );
  button.addEventListener("click", () => {
    if (owner === button && isKept) hide();
    else show(button, figure, true);
  });
  button.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse" && !isKept) show(button, figure, false);
  });
  button.addEventListener("pointerleave", leave);
  return button;
}
