"use strict";

// What the client and the server share: contract.py says why the figures are what they are.

const crypto = require("crypto");
const http2 = require("http2");

const SERVICE = "calls.Peer";

const SIZES = [0, 1, 100_000, 16 << 20];
const STREAMED = 3;
const CONCURRENT = 100;
const ENTRIES = 200;
const STATUSES = 17;
const REPEATS = 10;
// Milliseconds. The kernel allows for a share of them; the event loop needs more than that of contract.py's.
const TIMEOUTS = [500, 600, 700, 800];
const LOADED = 8;

const OK = 0;
const CANCELLED = 1;
const UNKNOWN = 2;
const DEADLINE_EXCEEDED = 4;
const UNIMPLEMENTED = 12;
const INTERNAL = 13;
const UNAVAILABLE = 14;
const PERMISSION_DENIED = 7;
const DENIAL = "RBAC: access denied";

const OPTIONS = {
  "grpc.max_receive_message_length": -1,
  "grpc.max_send_message_length": -1,
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 100,
  "grpc.enable_http_proxy": 0,
  // A call that is made again is another call to the kernel. What the server has refused to look at, grpc-js makes
  // again nevertheless: `requested` tells.
  "grpc.enable_retries": 0,
  // Windows of 64 KB make many little frames, and 16 MiB slow: one of the two directions may have them.
  "grpc-node.flow_control_window": 1 << 20,
};

// Streams that clients have opened, whatever became of them.
let requested = 0;

// Node takes 128 entries of metadata unless told otherwise, which grpc-js has no option for; and grpc-js does not say
// how often it has made a call again.
function adjustHttp2() {
  const { connect, createServer } = http2;
  http2.createServer = (options) => createServer({ ...options, maxHeaderListPairs: 2 * ENTRIES });
  http2.connect = (authority, options) => {
    const session = connect(authority, { ...options, maxHeaderListPairs: 2 * ENTRIES });
    const { request } = session;
    session.request = (...fields) => {
      const stream = request.apply(session, fields);
      requested += 1;
      return stream;
    };
    return session;
  };
}

function countRequested() {
  return requested;
}

function path(method) {
  return `/${SERVICE}/${method}`;
}

function identity(data) {
  return data;
}

const messages = new Map();

function message(size) {
  if (!messages.has(size)) {
    const piece = crypto.createHash("shake256", { outputLength: Math.min(size, 4_099) || 1 }).update(String(size));
    messages.set(size, Buffer.alloc(size, piece.digest()));
  }
  return messages.get(size);
}

// Pairs of name and value, as `metadata` of contract.py's.
function entries() {
  const everyByte = Buffer.from([...Array(256).keys()]);
  return [...Array(ENTRIES).keys()].map((number) =>
    number % 5
      ? [`x-entry-${number}`, `value ${number} ` + "v".repeat(number % 40)]
      : [`x-entry-${number}-bin`, everyByte.subarray(number, number + 1 + (number % 50))],
  );
}

function packStream(count, size) {
  const data = Buffer.alloc(8);
  data.writeUInt32BE(count);
  data.writeUInt32BE(size, 4);
  return data;
}

function packSum(count, size) {
  const data = Buffer.alloc(12);
  data.writeUInt32BE(count);
  data.writeBigUInt64BE(BigInt(size), 4);
  return data;
}

function packNumber(number) {
  const data = Buffer.alloc(4);
  data.writeUInt32BE(number);
  return data;
}

// NAME=NUMBER among arguments, as channel options.
function channelOptions(words) {
  const pairs = words.filter((each) => each.includes("=")).map((each) => each.split("="));
  return { ...OPTIONS, ...Object.fromEntries(pairs.map(([name, value]) => [name, Number(value)])) };
}

module.exports = {
  SIZES, STREAMED, CONCURRENT, STATUSES, REPEATS, TIMEOUTS, LOADED,
  OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, PERMISSION_DENIED, DENIAL,
  adjustHttp2, channelOptions, countRequested, entries, identity, message, packNumber, packStream, packSum, path,
};
