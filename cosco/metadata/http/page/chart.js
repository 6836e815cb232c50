// Charts of the last five minutes, and bars of sizes, as SVG.

import { attr, h, put, s } from "./dom.js";

const HEIGHT = 132;
const SPAN_S = 300;
const LEFT = 64;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;
const TABLE_EVERY = 30;

// A round number that is at least `value`, for the top of an axis. Of bytes it is round in 1,024s.
function roundUp(value, isBytes) {
  if (!(value > 0)) return 1;
  const base = isBytes ? 1024 ** Math.max(0, Math.floor(Math.log2(value) / 10)) : 1;
  const scaled = value / base;
  const ten = 10 ** Math.floor(Math.log10(scaled));
  const step = [1, 2, 4, 5, 8, 10].find((one) => one * ten >= scaled) ?? 10;
  return step * ten * base;
}

// A chart of lines. `lines`: [{label, swatch, of}], see Feed.series; `say` says a value; `stacked`:
// they lie on each other. Returns {node, set(feed)}.
export function chart(title, lines, say, { stacked = false, isBytes = false } = {}) {
  const grid = [0, 0.5, 1].map(() => ({
    line: s("line", { class: "rule", x1: LEFT }),
    text: s("text", { class: "axis", x: LEFT - 8 }),
  }));
  const paths = lines.map((one) => ({
    area: s("path", { class: `area ${one.swatch}` }),
    line: s("path", { class: `line ${one.swatch}` }),
  }));
  const cross = s("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM });
  const ages = ["5 min ago", "2.5 min", "now"].map((text) =>
    s("text", { class: "axis", y: HEIGHT - 4 }, text),
  );
  const image = s(
    "svg",
    { class: "chart", role: "img", height: HEIGHT, width: "100%" },
    grid.flatMap((one) => [one.line, one.text]),
    paths.flatMap((one) => [one.area, one.line]),
    ages,
    cross,
  );
  const readout = h("p", { class: "readout", "aria-hidden": "true" });
  const values = h("details", { class: "values" }, h("summary", {}, "Values"));
  const under = h("div", { class: "under" }, readout, values);
  const node = h("figure", { class: "figure" }, image, under);
  let shown = [];
  let width = 0;

  const x = (at) => LEFT + ((at + SPAN_S) / SPAN_S) * (width - LEFT - RIGHT);
  let top = 1;
  const y = (value) => TOP + (1 - Math.min(value, top) / top) * (HEIGHT - TOP - BOTTOM);

  function layout() {
    width = Math.max(200, node.clientWidth);
    attr(image, "viewBox", `0 0 ${width} ${HEIGHT}`);
    grid.forEach((one, i) => {
      const at = TOP + (1 - i / 2) * (HEIGHT - TOP - BOTTOM);
      attr(one.line, "x2", width - RIGHT);
      attr(one.line, "y1", at);
      attr(one.line, "y2", at);
      attr(one.text, "y", at + 4);
      attr(one.text, "text-anchor", "end");
    });
    [LEFT, x(-SPAN_S / 2), width - RIGHT].forEach((at, i) => {
      attr(ages[i], "x", at);
      attr(ages[i], "text-anchor", ["start", "middle", "end"][i]);
    });
  }

  function draw() {
    if (!width) layout();
    const sums = stacked && shown.length ? shown[0].map(() => 0) : null;
    const tops = shown.map((points) =>
      points.map(([at, value], i) => {
        const low = sums ? sums[i] : 0;
        if (sums) sums[i] += value || 0;
        return [at, low, low + (value || 0)];
      }),
    );
    top = roundUp(Math.max(0, ...tops.flat().map((one) => one[2])), isBytes);
    grid.forEach((one, i) => put(one.text, i ? say((top * i) / 2) : "0"));
    tops.forEach((points, i) => {
      const there = points.filter(([at]) => at >= -SPAN_S);
      const line = there
        .map(([at, , high]) => `${x(at).toFixed(1)},${y(high).toFixed(1)}`)
        .join("L");
      const low = there
        .map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`)
        .reverse();
      attr(paths[i].line, "d", line && `M${line}`);
      attr(paths[i].area, "d", line && `M${line}L${low.join("L")}Z`);
    });
    attr(image, "aria-label", `${title}, the last five minutes. ${summary()}`);
    if (values.open) fill();
  }

  function summary() {
    return lines
      .map((one, i) => {
        const all = (shown[i] ?? []).map(([, value]) => value || 0);
        if (!all.length) return `${one.label}: nothing yet.`;
        return `${one.label}: now ${say(all.at(-1))}, at most ${say(Math.max(...all))}.`;
      })
      .join(" ");
  }

  function fill() {
    const picked = (shown[0] ?? []).filter((_, i, all) => (all.length - 1 - i) % TABLE_EVERY === 0);
    const index = (shown[0] ?? []).map(([at]) => at);
    const body = picked.reverse().map(([at]) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, at > -1 ? "now" : `${Math.round(-at)} s ago`),
        shown.map((points) => h("td", { class: "number" }, say(points[index.indexOf(at)][1] || 0))),
      ),
    );
    const heads = lines.map((one) => h("th", { scope: "col", class: "number" }, one.label));
    values.replaceChildren(
      values.firstElementChild,
      h(
        "table",
        {},
        h("caption", { class: "hidden" }, title),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "When"), heads)),
        h("tbody", {}, body),
      ),
    );
  }

  values.addEventListener("toggle", () => values.open && fill());
  image.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect();
    const at = ((event.clientX - box.left - LEFT) / (width - LEFT - RIGHT)) * SPAN_S - SPAN_S;
    const points = shown[0] ?? [];
    const place = points.findLastIndex((one) => one[0] <= at + 0.5);
    if (place < 0) return;
    attr(cross, "x1", x(points[place][0]));
    attr(cross, "x2", x(points[place][0]));
    cross.classList.add("on");
    put(
      readout,
      [
        `${Math.round(-points[place][0])} s ago`,
        ...lines.map((one, i) => `${one.label} ${say(shown[i][place][1] || 0)}`),
      ].join(" · "),
    );
  });
  image.addEventListener("pointerleave", () => {
    cross.classList.remove("on");
    put(readout, "");
  });
  const watch = new ResizeObserver(() => {
    layout();
    draw();
  });
  watch.observe(node);
  return {
    node,
    set(feed) {
      shown = lines.map((one) => feed.series(one.of));
      draw();
    },
  };
}

// Bars of the sizes of partitions, as `bands` of an exchange. Returns {node, set(sizes, isLog)}.
export function sizeBars(say) {
  const WIDTH = 640;
  const TALL = 180;
  const bars = s("g", {});
  const mean = s("line", { class: "mean", x1: 0, x2: WIDTH });
  const image = s(
    "svg",
    {
      class: "sizes",
      role: "img",
      viewBox: `0 0 ${WIDTH} ${TALL}`,
      preserveAspectRatio: "none",
      height: TALL,
      width: "100%",
    },
    bars,
    mean,
  );
  const axis = h("p", { class: "sizes-axis", "aria-hidden": "true" }, h("span"), h("span"));
  const readout = h("p", { class: "readout", "aria-hidden": "true" });
  const node = h("figure", { class: "figure" }, image, axis, readout);
  let bands = [];

  image.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const band = bands[Math.min(bands.length - 1, Math.max(0, Math.floor(share * bands.length)))];
    if (band) put(readout, `${named(band)}: ${say(band.largest_bytes)}`);
  });
  image.addEventListener("pointerleave", () => put(readout, ""));

  return {
    node,
    set(sizes, isLog) {
      bands = sizes.bands;
      const most = Math.max(1, sizes.largest_bytes);
      const tall = (value) => {
        if (value <= 0) return 0;
        const share = isLog ? Math.log1p(value) / Math.log1p(most) : value / most;
        return Math.max(1, share * (TALL - 2));
      };
      const each = WIDTH / bands.length;
      const gap = each > 6 ? 1.5 : each > 3 ? 0.5 : 0;
      const large = 2 * sizes.mean_bytes;
      while (bars.childElementCount > bands.length) bars.lastChild.remove();
      while (bars.childElementCount < bands.length) bars.append(s("rect", {}));
      bands.forEach((band, i) => {
        const height = tall(band.largest_bytes);
        const rect = bars.children[i];
        attr(rect, "x", (i * each).toFixed(2));
        attr(rect, "width", Math.max(0.5, each - gap).toFixed(2));
        attr(rect, "y", (TALL - height).toFixed(2));
        attr(rect, "height", height.toFixed(2));
        attr(rect, "class", band.largest_bytes > large ? "large" : null);
      });
      const at = TALL - tall(sizes.mean_bytes);
      attr(mean, "y1", at.toFixed(2));
      attr(mean, "y2", at.toFixed(2));
      const last = bands.at(-1);
      put(axis.firstChild, "partition 0");
      put(axis.lastChild, last ? String(last.first + last.count - 1) : "");
      attr(
        image,
        "aria-label",
        `Sizes of partitions, ${isLog ? "logarithmic" : "linear"}: ` +
          `the largest ${say(sizes.largest_bytes)}, ` +
          `the mean ${say(sizes.mean_bytes)}. The table below has the largest ones.`,
      );
    },
  };
}

function named(band) {
  if (band.count === 1) return `Partition ${band.first}`;
  return `The largest of partitions ${band.first} to ${band.first + band.count - 1}`;
}
