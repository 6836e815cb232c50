// What the service tells as it happens: figures, totals of all daemons, events. One connection,
// which is opened again, later and later, when it has ended.

import { get } from "./api.js";

const MAX_POINTS = 300;
const MAX_EVENTS = 1000;
const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 15;
// Rates are over this time: daemons tell their figures once a second, one now and one then.
const WINDOW_S = 5;

export class Feed extends EventTarget {
  constructor() {
    super();
    this.figures = null;
    this.names = [];
    this.points = [];
    this.events = [];
    this.state = "away";
    this.wait_s = 0;
    this.source = null;
    this.timer = 0;
    this.failures = 0;
  }

  // Begin to listen, or do so at once if it is waited for.
  open() {
    this.close();
    const source = new EventSource("/api/v1/live");
    this.source = source;
    const on = (kind, act) =>
      source.addEventListener(kind, (event) => {
        if (this.source === source) act.call(this, JSON.parse(event.data));
      });
    on("snapshot", this.begin);
    on("figures", (changed) => {
      Object.assign(this.figures, changed);
      this.tell("figures");
    });
    on("totals", (point) => {
      this.points.push(point);
      if (this.points.length > MAX_POINTS) this.points.shift();
      this.tell("totals");
    });
    on("event", (event) => this.add([event], true));
    on("end", () => this.again());
    source.onerror = () => {
      if (this.source === source) this.again();
    };
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  begin(snapshot) {
    this.failures = 0;
    this.figures = snapshot.figures;
    this.names = snapshot.totals.names;
    this.points = snapshot.totals.points;
    this.become("live", 0);
    this.tell("figures");
    this.tell("totals");
    this.catchUp();
  }

  // Ask for the newest events: those of before this page, and those that were missed.
  async catchUp() {
    try {
      const page = await get("events?limit=500");
      this.add(page.events, false);
    } catch {
      // The next snapshot asks again.
    }
  }

  // Listen again after a while, once the service says who we are to it.
  again() {
    this.close();
    const wait_s = Math.min(FIRST_WAIT_S * 2 ** this.failures, LONGEST_WAIT_S);
    this.failures += 1;
    this.become("away", wait_s);
    this.timer = setTimeout(
      async () => {
        try {
          await get("session");
          this.open();
        } catch (error) {
          if (error.status === 401) this.tell("unknown");
          else this.again();
        }
      },
      wait_s * 1000 * (0.8 + 0.4 * Math.random()),
    );
  }

  add(events, isNew) {
    const known = new Set(this.events.map((one) => one.sequence));
    const fresh = events.filter((one) => !known.has(one.sequence));
    if (!fresh.length) return;
    this.events = [...this.events, ...fresh].sort((a, b) => b.sequence - a.sequence);
    this.events.length = Math.min(this.events.length, MAX_EVENTS);
    this.tell("events", isNew ? fresh : []);
  }

  become(state, wait_s) {
    this.state = state;
    this.wait_s = wait_s;
    this.tell("state");
  }

  tell(kind, detail = null) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  // The newest value of a figure; NaN: there is none.
  value(name) {
    const point = this.points.at(-1);
    const place = this.names.indexOf(name);
    return point && place > 0 ? point[place] : NaN;
  }

  // By how much a figure has grown in the last `window_s`, and in how many seconds really.
  growth(name, window_s = WINDOW_S) {
    return grown(this.points, this.points.length - 1, this.names.indexOf(name), window_s);
  }

  // How much a second.
  rate(name) {
    const [by, in_s] = this.growth(name);
    return in_s > 0 ? by / in_s : 0;
  }

  // A value for each point, [seconds before now, value]; `of` gets what gives rates or values.
  series(of) {
    const last = this.points.at(-1)?.[0] ?? 0;
    return this.points.map((point, i) => [
      point[0] - last,
      of({
        rate: (name) => {
          const [by, in_s] = grown(this.points, i, this.names.indexOf(name), WINDOW_S);
          return in_s > 0 ? by / in_s : 0;
        },
        value: (name) => point[this.names.indexOf(name)],
      }),
    ]);
  }
}

function grown(points, last, place, window_s) {
  if (last < 1 || place < 1) return [0, 0];
  let first = last;
  while (first > 0 && points[last][0] - points[first][0] < window_s - 0.5) first -= 1;
  return [
    Math.max(0, points[last][place] - points[first][place]),
    points[last][0] - points[first][0],
  ];
}
