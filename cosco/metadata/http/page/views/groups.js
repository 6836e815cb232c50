// What keeps exchanges together: groups, by id, and applications, by number; each by pages.

import { get, query, repeat } from "../api.js";
import { h, put, segment } from "../dom.js";
import { plural, seconds, whole } from "../format.js";
import { pager, rows, table } from "../parts.js";

const PAGE = 25;
const AGAIN_MS = 3000;

export const title = () => "Groups and applications";

export function open(place, { who, failed }) {
  const tenant = who.asks ? [{ title: "Tenant", of: (one) => one.tenant || "–" }] : [];
  const ends = [
    { title: "Driver last heard", number: true, of: (one) => `${seconds(one.heard_s)} ago` },
    { title: "Lease left", number: true, of: (one) => seconds(one.lease_left_s) },
  ];
  const listings = [
    listing({
      name: "groups",
      caption: "Groups",
      one: "group",
      key: (group) => group.group_id,
      head: { title: "Group", of: linked },
      columns: [
        ...tenant,
        { title: "Open exchanges", number: true, of: (group) => whole(group.open) },
        { title: "Made so far", number: true, of: (group) => whole(group.exchanges) },
        { title: "Partitions", number: true, of: (group) => whole(group.partitions) },
        { title: "Mappers", number: true, of: (group) => whole(group.mappers) },
        ...ends,
      ],
    }),
    listing({
      name: "applications",
      caption: "Applications",
      one: "application",
      key: (application) => application.number,
      head: { title: "Application", of: (application) => application.application_id },
      columns: [
        ...tenant,
        { title: "Exchanges", number: true, of: (application) => whole(application.exchanges) },
        ...ends,
      ],
    }),
  ];
  place.append(...listings.flatMap((each) => each.nodes));
  return () => listings.forEach((each) => each.stop());

  // A table of one of both, that is asked for again and again, with its buttons.
  function listing({ name, caption, one, key, head, columns }) {
    const failure = h("p", { class: "failure", role: "alert" });
    const pages = pager(() => again.now());
    const list = table(caption, [head, ...columns]);
    const again = repeat(async (over) => {
      try {
        const page = await get(query(name, { cursor: pages.cursor, limit: PAGE }));
        if (over.aborted) return;
        put(failure, "");
        rows(list, page[name], key, row, fill, `There are no ${name}.`);
        pages.set(page.next, plural(page[name].length, one));
      } catch (error) {
        if (!over.aborted) failed(failure, error);
      }
    }, AGAIN_MS);

    function row(item) {
      const line = h("tr", {}, h("th", { scope: "row" }, head.of(item)));
      line.shown = columns.map(({ number }) => h("td", number ? { class: "number" } : {}));
      line.append(...line.shown);
      return line;
    }

    function fill(line, item) {
      columns.forEach((column, index) => put(line.shown[index], column.of(item)));
    }

    return { nodes: [failure, list.node, pages.node], stop: () => again.stop() };
  }
}

// Ids of a group's exchanges begin with its own.
const linked = (group) =>
  h("a", { href: `#/exchanges?prefix=${segment(`${group.group_id}/`)}` }, group.group_id);
