// What people change by a click: each is asked about before, by its name.

import { post } from "./api.js";
import { h, newId, put, segment } from "./dom.js";

const RANKS = { viewer: 0, tenant: 1, admin: 2 };

// Whether who is signed in may do what needs a role.
export const may = (who, role) => RANKS[who.role] >= RANKS[role];

// Ask whether to do something, and do it. `act` is called after a yes; what it returns is told.
function confirm({ title, text, verb, act, done }) {
  const id = newId("dialog");
  const failure = h("p", { class: "failure", role: "alert" });
  const yes = h("button", { type: "submit", class: "danger" }, verb);
  const no = h("button", { type: "button", autofocus: true }, "Cancel");
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id }, title),
    h("p", { id: `${id}-text` }, text),
    failure,
    h("div", { class: "buttons" }, no, yes),
  );
  const dialog = h("dialog", { "aria-labelledby": id, "aria-describedby": `${id}-text` }, form);
  no.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    yes.disabled = true;
    try {
      const told = await act();
      dialog.close();
      done(told);
    } catch (error) {
      put(failure, error.message);
      yes.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
}

export function drain(address, done) {
  confirm({
    title: `Drain ${address}?`,
    text:
      `The daemon at ${address} gets nothing new. Its ranges move to other daemons, it stores ` +
      "everything, and it ends once nobody needs it. Until then it can be given work again.",
    verb: "Drain",
    act: async () => {
      await post(`daemons/${segment(address)}/drain`);
      return `${address} drains.`;
    },
    done,
  });
}

export function undrain(address, done) {
  confirm({
    title: `Give ${address} work again?`,
    text: `The daemon at ${address} has been told to drain. It gets new ranges again.`,
    verb: "Undrain",
    act: async () => {
      const reply = await post(`daemons/${segment(address)}/undrain`);
      return reply.was_draining ? `${address} gets work again.` : `${address} did not drain.`;
    },
    done,
  });
}

export function close(shuffleId, done) {
  confirm({
    title: "Close this exchange?",
    text:
      `${shuffleId} ends, whoever its driver is: writers and readers fail, and its rows are ` +
      "deleted. This cannot be undone.",
    verb: "Close the exchange",
    act: async () => {
      const reply = await post(`exchanges/${segment(shuffleId)}/close`);
      return reply.was_open ? `${shuffleId} is closed.` : `${shuffleId} was closed before.`;
    },
    done,
  });
}
