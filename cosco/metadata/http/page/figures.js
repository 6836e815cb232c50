// The numbers that are shown: what each means, how Prometheus calls it, and what it is made of.

import {
  bytes,
  bytesPerSecond,
  count,
  digits,
  perSecond,
  seconds,
  secondsPerSecond,
  times,
} from "./format.js";

// A disk with one arm, as the benchmarks have it: 4.03 ms for the seek and 4.17 ms for half a turn
// of 7,200 rpm, then 180 MiB/s. Each read and each write pays for the arm (the rule "none").
const POSITIONING_S = 0.0082;
const BYTES_PER_S = 180 * 1024 * 1024;

// Seconds that a spindle would have needed.
export const spindleSeconds = (ios, transferred) => ios * POSITIONING_S + transferred / BYTES_PER_S;

const MODEL =
  "The model is one disk of 7,200 rpm: 8.2 ms for each read or write to position the arm, and " +
  "its bytes at 180 MiB/s. 1 means that one such disk would have been busy all the time.";

// What a daemon tells, by its name in the interface. `rate`: how a second of it is said; none: it
// is there now. `total`: how what was since the daemon started is said, or what is there now.
export const TOLD = {
  bytes_received: {
    label: "Received from writers",
    meaning: "Bytes of frames that writers sent, as they came: compressed.",
    metric: "cosco_bytes_received_total",
    rate: bytesPerSecond,
    total: bytes,
  },
  blocks_received: {
    label: "Blocks received",
    meaning: "Blocks in those frames: rows of one mapper for one partition, compressed once.",
    metric: "cosco_blocks_received_total",
    rate: perSecond,
    total: count,
  },
  rows_received: {
    label: "Rows received",
    meaning: "Rows that end in those blocks, those of duplicates among them.",
    metric: "cosco_rows_received_total",
    rate: perSecond,
    total: count,
  },
  duplicates_dropped: {
    label: "Duplicates dropped",
    meaning: "Blocks that were there already, as their frame had been sent again.",
    metric: "cosco_duplicates_dropped_total",
    rate: perSecond,
    total: count,
  },
  bytes_stored: {
    label: "Rows stored",
    meaning: "Bytes of chunks that the store has taken.",
    metric: "cosco_bytes_stored_total",
    rate: bytesPerSecond,
    total: bytes,
  },
  bytes_fetched: {
    label: "Sent to readers",
    meaning: "Bytes of rows that daemons sent to readers.",
    metric: "cosco_bytes_fetched_total",
    rate: bytesPerSecond,
    total: bytes,
  },
  rows_fetched: {
    label: "Rows sent",
    meaning:
      "Rows that end in blocks that daemons sent to readers, those of copies among them. What is " +
      "read directly is not.",
    metric: "cosco_rows_fetched_total",
    rate: perSecond,
    total: count,
  },
  bytes_referenced: {
    label: "Read directly",
    meaning: "Bytes that readers were told to read from the store themselves.",
    metric: "cosco_bytes_referenced_total",
    rate: bytesPerSecond,
    total: bytes,
  },
  flush_failures: {
    label: "Failed flushes",
    meaning:
      "Writes of segments that the store refused, or did not end in time. They are repeated.",
    metric: "cosco_flush_failures_total",
    rate: perSecond,
    total: count,
  },
  writes: {
    label: "Writes to the store",
    meaning: "Writes that the store was asked for.",
    metric: "cosco_store_write_bytes_count",
    rate: perSecond,
    total: count,
  },
  write_bytes: {
    label: "Written to the store",
    meaning: "Bytes of those writes, indexes of segments included.",
    metric: "cosco_store_write_bytes_sum",
    rate: bytesPerSecond,
    total: bytes,
  },
  write_s: {
    label: "Time of writes",
    meaning: "Seconds that writes took, added up: with several at a time, more than one a second.",
    metric: "cosco_store_write_seconds_sum",
    rate: secondsPerSecond,
    total: seconds,
  },
  reads: {
    label: "Reads from the store",
    meaning: "Reads that the store was asked for.",
    metric: "cosco_store_read_bytes_count",
    rate: perSecond,
    total: count,
  },
  read_bytes: {
    label: "Read from the store",
    meaning: "Bytes of those reads.",
    metric: "cosco_store_read_bytes_sum",
    rate: bytesPerSecond,
    total: bytes,
  },
  read_s: {
    label: "Time of reads",
    meaning: "Seconds that reads took, added up.",
    metric: "cosco_store_read_seconds_sum",
    rate: secondsPerSecond,
    total: seconds,
  },
  waited_s: {
    label: "Writers waited",
    meaning:
      "Back-pressure: seconds that frames of writers waited for memory, added up over all. " +
      "It stays near 0 while the store keeps up.",
    metric: "cosco_writers_waited_seconds_total",
    rate: secondsPerSecond,
    total: seconds,
  },
  pages_used_bytes: {
    label: "Memory in use",
    meaning:
      "Bytes of pages that hold rows: buffers of what is not stored yet, and copies for others.",
    metric: "cosco_pages_used_bytes",
    total: bytes,
  },
  copies_bytes: {
    label: "Copies for others",
    meaning:
      "Bytes of pages with copies that a replica keeps for a primary until rows are durable.",
    metric: "cosco_copies_bytes",
    total: bytes,
  },
  waiting_bytes: {
    label: "Waiting for memory",
    meaning: "Bytes of frames that are announced or here, and wait for pages.",
    metric: "cosco_waiting_frames_bytes",
    total: bytes,
  },
  granted_bytes: {
    label: "Frames under way",
    meaning: "Bytes of frames that writers may send, or have sent, and that are not answered yet.",
    metric: "cosco_granted_bytes",
    total: bytes,
  },
  push_streams: {
    label: "Push streams",
    meaning: "Connections on which writers, or primaries that forward, push frames.",
    metric: "cosco_push_streams",
    total: count,
  },
  fetch_streams: {
    label: "Readers served",
    meaning: "Readers to which rows are sent at this moment.",
    metric: "cosco_fetch_streams",
    total: count,
  },
  followers: {
    label: "Readers that follow",
    meaning: "Readers of groups that wait for the marks of mappers.",
    metric: "cosco_followers",
    total: count,
  },
};

const per = (a, b) => (b > 0 ? a / b : NaN);

// What is made of several of these. `of` gets the feed, and gives NaN where there is nothing.
export const MADE = {
  received: {
    label: "In",
    meaning: TOLD.bytes_received.meaning,
    metric: TOLD.bytes_received.metric,
    by: "bytes_received",
    of: (f) => f.rate("bytes_received"),
    say: bytesPerSecond,
  },
  rows_received: {
    label: "Rows in",
    meaning: TOLD.rows_received.meaning,
    metric: TOLD.rows_received.metric,
    by: "rows_received",
    of: (f) => f.rate("rows_received"),
    say: perSecond,
  },
  sent: {
    label: "Out",
    meaning:
      "Bytes of rows that readers get: what daemons send, and what they are told to read directly.",
    metric: "cosco_bytes_fetched_total + cosco_bytes_referenced_total",
    by: "bytes_fetched",
    of: (f) => f.rate("bytes_fetched") + f.rate("bytes_referenced"),
    say: bytesPerSecond,
  },
  rows_fetched: {
    label: "Rows out",
    meaning: TOLD.rows_fetched.meaning,
    metric: TOLD.rows_fetched.metric,
    by: "rows_fetched",
    of: (f) => f.rate("rows_fetched"),
    say: perSecond,
  },
  writes: {
    label: "Writes",
    meaning: TOLD.writes.meaning,
    metric: TOLD.writes.metric,
    by: "writes",
    of: (f) => f.rate("writes"),
    say: perSecond,
  },
  reads: {
    label: "Reads",
    meaning: TOLD.reads.meaning,
    metric: TOLD.reads.metric,
    by: "reads",
    of: (f) => f.rate("reads"),
    say: perSecond,
  },
  write_size: {
    label: "Mean write",
    meaning:
      "How large a write to the store was, in the last 5 minutes. Large writes are what a " +
      "shuffle service is for.",
    metric: "cosco_store_write_bytes_sum / cosco_store_write_bytes_count",
    by: "write_bytes",
    of: (f) => per(f.growth("write_bytes", 300)[0], f.growth("writes", 300)[0]),
    say: bytes,
  },
  read_size: {
    label: "Mean read",
    meaning: "How large a read from the store was, in the last 5 minutes.",
    metric: "cosco_store_read_bytes_sum / cosco_store_read_bytes_count",
    by: "read_bytes",
    of: (f) => per(f.growth("read_bytes", 300)[0], f.growth("reads", 300)[0]),
    say: bytes,
  },
  amplification: {
    label: "Write amplification",
    meaning:
      "Bytes written to the store for each byte that came from writers, in the last 5 minutes. " +
      "Above 1 are indexes, rows that were sent again, and copies that had to be stored.",
    metric: "cosco_store_write_bytes_sum / cosco_bytes_received_total",
    by: "write_bytes",
    of: (f) => per(f.growth("write_bytes", 300)[0], f.growth("bytes_received", 300)[0]),
    say: times,
  },
  spindle_writes: {
    label: "Writes",
    meaning: `Spindles that the writes would keep busy. ${MODEL}`,
    metric: "cosco_store_write_bytes_count * 0.0082 + cosco_store_write_bytes_sum / 188743680",
    by: "writes",
    of: (f) => spindleSeconds(f.rate("writes"), f.rate("write_bytes")),
    say: digits,
  },
  spindle_reads: {
    label: "Reads",
    meaning: `Spindles that the reads would keep busy. ${MODEL}`,
    metric: "cosco_store_read_bytes_count * 0.0082 + cosco_store_read_bytes_sum / 188743680",
    by: "reads",
    of: (f) => spindleSeconds(f.rate("reads"), f.rate("read_bytes")),
    say: digits,
  },
  waited: {
    label: "Writers waited",
    meaning: TOLD.waited_s.meaning,
    metric: TOLD.waited_s.metric,
    by: "waited_s",
    of: (f) => f.rate("waited_s"),
    say: secondsPerSecond,
  },
  waiting: {
    label: "Waiting now",
    meaning: TOLD.waiting_bytes.meaning,
    metric: TOLD.waiting_bytes.metric,
    by: "waiting_bytes",
    of: (f) => f.value("waiting_bytes"),
    say: bytes,
  },
};

// What memory is for, in the order of the bars.
export const MEMORY = {
  buffers: {
    label: "Buffers",
    meaning: "Rows that writers were told are safe, or will be, and that no store has yet.",
    metric: "cosco_pages_used_bytes - cosco_copies_bytes",
    by: "pages_used_bytes",
  },
  copies: {
    label: "Copies",
    meaning: TOLD.copies_bytes.meaning,
    metric: TOLD.copies_bytes.metric,
    by: "copies_bytes",
  },
  free: {
    label: "Free",
    meaning: "Pages for what comes next.",
    metric: "cosco_pages_capacity_bytes - cosco_pages_used_bytes",
    by: "memory_used_bytes",
  },
  waiting: {
    label: "Waiting",
    meaning: `${TOLD.waiting_bytes.meaning} They come on top of the memory.`,
    metric: TOLD.waiting_bytes.metric,
    by: "waiting_bytes",
  },
};

// What the memory of a daemon, or of all, is for.
export function memoryOf(memory_bytes, free_bytes, copies_bytes, waiting_bytes) {
  const used = Math.max(0, memory_bytes - free_bytes);
  const copies = Math.min(used, copies_bytes || 0);
  return { buffers: used - copies, copies, free: free_bytes, waiting: waiting_bytes || 0 };
}

// The same of one daemon of the interface; of one that is gone nothing.
export function memoryOfDaemon(one) {
  if (one.state === "dead") return memoryOf(0, 0, 0, 0);
  const { copies_bytes, waiting_bytes } = one.figures ?? {};
  return memoryOf(one.memory_bytes, one.memory_free_bytes, copies_bytes, waiting_bytes);
}

export const memoryInWords = (one) =>
  one.state === "dead"
    ? `${bytes(one.memory_bytes)}, gone`
    : `${bytes(one.memory_bytes - one.memory_free_bytes)} of ${bytes(one.memory_bytes)} in use`;

// What there is of the metadata service's own figures.
export const COUNTED = {
  exchanges_open: {
    label: "Open exchanges",
    meaning: "Exchanges that are written or read.",
    metric: 'cosco_exchanges{state="open"}',
    href: "#/exchanges?state=open",
  },
  exchanges_closing: {
    label: "Closing",
    meaning: "Exchanges that have ended, and of which daemons still delete files.",
    metric: 'cosco_exchanges{state="closing"}',
    href: "#/exchanges?state=closing",
  },
  daemons_serving: {
    label: "Daemons serving",
    meaning: "Daemons that live and get new work.",
    metric: 'cosco_daemons{state="serving"}',
    href: "#/daemons?state=serving",
  },
  daemons_draining: {
    label: "Draining",
    meaning: "Daemons that leave in good order: their ranges move, they store everything.",
    metric: 'cosco_daemons{state="draining"}',
    href: "#/daemons?state=draining",
  },
  daemons_dead: {
    label: "Dead",
    meaning: "Daemons that are gone, and that open exchanges still name.",
    metric: 'cosco_daemons{state="dead"}',
    href: "#/daemons?state=dead",
  },
  waiting_calls: {
    label: "Calls that wait",
    meaning:
      "Calls of writers, readers and drivers that wait for something to happen. That is how they " +
      "hear of it at once, and is no sign of trouble.",
    metric: "cosco_waiting_calls",
    href: "#/exchanges?state=open",
  },
};
