// Exchanges by pages: those that are open or closing, or that have finished and are kept.

import { get, query, repeat } from "../api.js";
import { h, put, segment } from "../dom.js";
import { count, plural, whole } from "../format.js";
import { chip, field, pager, rows, table } from "../parts.js";

const PAGE = 50;
const AGAIN_MS = 3000;
//: Pages of the service that one of this list is made of at most.
const MAX_ASKED = 20;
const STATES = { "": "open or closing", open: "open", closing: "closing", finished: "finished" };

export const title = () => "Exchanges";

export function open(place, { who, failed }, _, parameters) {
  const state = h(
    "select",
    { id: "state" },
    Object.entries(STATES).map(([value, label]) =>
      h("option", { value, selected: value === (parameters.get("state") ?? "") }, label),
    ),
  );
  const prefix = h("input", {
    type: "search",
    id: "prefix",
    autocomplete: "off",
    spellcheck: "false",
    value: parameters.get("prefix") ?? "",
  });
  const tenant = h("input", {
    type: "search",
    id: "tenant",
    autocomplete: "off",
    spellcheck: "false",
  });
  const seesAll = who.asks && who.role === "admin";
  const failure = h("p", { class: "failure", role: "alert" });
  const pages = pager(() => again.now());
  const list = table("Exchanges, by number", [
    { title: "Exchange" },
    { title: "State" },
    ...(who.asks ? [{ title: "Tenant" }] : []),
    { title: "Partitions", number: true },
    { title: "Mappers committed", number: true },
    { title: "Rows", number: true },
  ]);
  const form = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Exchanges" },
    field("State", state),
    field("Id begins with", prefix),
    seesAll ? field("Tenant", tenant) : null,
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    pages.restart();
    again.now();
  });
  place.append(form, failure, list.node, pages.node);

  function row(one) {
    const line = h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        h("a", { href: `#/exchanges/${segment(one.shuffle_id)}` }, one.shuffle_id),
      ),
    );
    line.state = chip();
    line.numbers = [0, 1, 2].map(() => h("td", { class: "number" }));
    line.append(
      h("td", {}, line.state.node),
      ...(who.asks ? [h("td", {}, one.tenant || "–")] : []),
      ...line.numbers,
    );
    return line;
  }

  function fill(line, one) {
    line.state.set(one.state);
    put(line.numbers[0], whole(one.partitions));
    put(line.numbers[1], whole(one.mappers_committed));
    put(line.numbers[2], count(one.rows));
  }

  // A page of the service may be short though others follow it, as it looks at some at a time.
  // Those that follow are asked for until this one is full.
  async function listed(over) {
    const found = { exchanges: [], next: pages.cursor };
    for (let asked = 0; asked < MAX_ASKED && found.exchanges.length < PAGE; asked += 1) {
      const page = await get(
        query("exchanges", {
          state: state.value,
          prefix: prefix.value,
          tenant: tenant.value,
          cursor: found.next,
          limit: PAGE - found.exchanges.length,
        }),
      );
      found.exchanges.push(...page.exchanges);
      found.next = page.next;
      if (!page.next || over.aborted) break;
    }
    return found;
  }

  const again = repeat(async (over) => {
    try {
      const page = await listed(over);
      if (over.aborted) return;
      put(failure, "");
      rows(
        list,
        page.exchanges,
        (one) => one.number,
        row,
        fill,
        page.next ? "None of these fits; the next page may have some." : "No exchange fits.",
      );
      pages.set(page.next, plural(page.exchanges.length, "exchange"));
    } catch (error) {
      if (!over.aborted) failed(failure, error);
    }
  }, AGAIN_MS);
  return () => again.stop();
}
