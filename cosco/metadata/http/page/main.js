// Begins the page: who looks at it, which view is shown, whether the service is there.

import { get, remove } from "./api.js";
import { attr, h, put } from "./dom.js";
import { Feed } from "./feed.js";
import { clock, seconds } from "./format.js";
import * as cluster from "./views/cluster.js";
import * as daemon from "./views/daemon.js";
import * as daemons from "./views/daemons.js";
import * as events from "./views/events.js";
import * as exchange from "./views/exchange.js";
import * as exchanges from "./views/exchanges.js";
import * as groups from "./views/groups.js";
import * as signin from "./views/signin.js";

// By the first word of the address after #/; with something behind it the second view.
const VIEWS = {
  "": [cluster, null],
  daemons: [daemons, daemon],
  exchanges: [exchanges, exchange],
  groups: [groups, null],
  events: [events, null],
};
const NOTICE_MS = 8000;

const main = document.getElementById("main");
const link = document.getElementById("link");
const notice = document.getElementById("notice");
const feed = new Feed();
let who = null;
let close = null;
let noticeTimer = 0;

const context = {
  feed,
  get who() {
    return who;
  },
  // Say something that has been done.
  tell(text) {
    put(notice, text);
    clearTimeout(noticeTimer);
    noticeTimer = setTimeout(() => put(notice, ""), NOTICE_MS);
  },
  // What to do about an error of a view: who is not known any more signs in; else `place` says it.
  failed(place, error) {
    if (error.status === 401) signIn();
    else put(place, error ? error.message : "");
  },
};

function show(isFirst) {
  close?.();
  close = null;
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const views = VIEWS[name] ?? VIEWS[""];
  let argument = "";
  try {
    argument = decodeURIComponent(rest.join("/"));
  } catch {
    // It is no id that this page has made.
  }
  const view = argument && views[1] ? views[1] : views[0];
  const heading = h("h1", { tabindex: "-1" }, view.title(argument));
  main.replaceChildren(heading);
  document.title = `${view.title(argument)} – Cosco`;
  for (const one of document.querySelectorAll("nav [data-view]")) {
    const isIt = one.dataset.view === (name in VIEWS && name ? name : "cluster");
    attr(one, "aria-current", isIt ? "page" : null);
  }
  close = view.open(main, context, argument, new URLSearchParams(search));
  if (!isFirst) {
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

function signIn() {
  close?.();
  feed.close();
  who = null;
  drawWho();
  main.replaceChildren(h("h1", { tabindex: "-1" }, signin.title()));
  document.title = `${signin.title()} – Cosco`;
  close = signin.open(main, (found) => {
    who = found;
    begin();
  });
}

function drawWho() {
  put(
    document.getElementById("name"),
    who?.asks ? `${who.name}, ${who.role} of ${who.tenant}` : "",
  );
  document.getElementById("sign-out").hidden = !who?.asks;
  document.body.classList.toggle("unknown", !who);
}

function drawLink() {
  attr(link, "data-state", feed.state);
  const isLive = feed.state === "live";
  put(link, isLive ? "Live" : "Away");
  if (isLive) return put(notice, "");
  clearTimeout(noticeTimer);
  const again = feed.wait_s ? ` It is asked again in ${seconds(feed.wait_s)}.` : "";
  put(notice, `The metadata service does not answer; what you see is of before.${again}`);
}

async function about() {
  try {
    const found = await get("cluster");
    put(
      document.getElementById("about"),
      `Cluster ${found.cluster_id}, Cosco ${found.version}, metadata service at ${found.address} ` +
        `since ${clock(found.started_s)}`,
    );
  } catch {
    // The feed says that the service is away.
  }
}

function begin() {
  drawWho();
  feed.open();
  show(true);
  about();
}

feed.addEventListener("state", drawLink);
feed.addEventListener("unknown", signIn);
window.addEventListener("hashchange", () => who && show(false));
document.getElementById("skip").addEventListener("click", () => main.focus());
document.getElementById("sign-out").addEventListener("click", async () => {
  try {
    await remove("session");
  } finally {
    signIn();
  }
});

async function start() {
  try {
    who = await get("session");
  } catch (error) {
    if (error.status === 401) return signIn();
    put(notice, `${error.message}. It is asked again in 3 s.`);
    setTimeout(start, 3000);
    return;
  }
  put(notice, "");
  begin();
}

start();
