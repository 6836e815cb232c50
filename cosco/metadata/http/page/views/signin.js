// Who may look at this cluster shows a token.

import { post } from "../api.js";
import { h, put } from "../dom.js";

export const title = () => "Sign in";

export function open(place, done) {
  const token = h("input", {
    type: "password",
    id: "token",
    required: true,
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": "token-help",
  });
  const failure = h("p", { class: "failure", role: "alert" });
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h(
    "form",
    { class: "card narrow" },
    h("label", { for: "token" }, "Token"),
    token,
    h(
      "p",
      { id: "token-help", class: "help" },
      "The content of your token file. It goes to the service once; this page then has a session " +
        "of eight hours at most.",
    ),
    failure,
    button,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    put(failure, "");
    try {
      done(await post("session", { token: token.value.trim() }));
    } catch (error) {
      put(failure, error.message);
      button.disabled = false;
      token.focus();
    }
  });
  place.append(form);
  token.focus();
  return () => {};
}
