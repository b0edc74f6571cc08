"use strict";

const zlib = require("zlib");
const grpc = require("@grpc/grpc-js");
const contract = require("./contract");
const { bidiStream, clientStream, serverStream, unary } = require("./calls");
const { Tally, check } = require("./tally");
const { message, packNumber, packStream, packSum, path } = contract;

// To be cancelled: more than goes out when nobody reads.
const ENDLESS = packStream(10_000, 100_000);

// Stories

function repeated(count, each) {
  return Array(count).fill(each);
}

async function shapes(client, tally) {
  const count = contract.STREAMED;
  for (const size of contract.SIZES) {
    const data = message(size);
    check("unary", (await unary(client, path("Unary"), data)).answer, data);
    tally.add(path("Unary"), 0, [size], [size]);
    const request = packStream(count, size);
    check("answers", await serverStream(client, path("ServerStream"), request).all(), repeated(count, data));
    tally.add(path("ServerStream"), 0, [8], repeated(count, size));
    const { answer } = await clientStream(client, path("ClientStream"), repeated(count, data));
    check("requests", answer, packSum(count, count * size));
    tally.add(path("ClientStream"), 0, repeated(count, size), [12]);
    await echoed(client, repeated(count, data));
    tally.add(path("BidiStream"), 0, repeated(count, size), repeated(count, size));
  }
  // Streams without a message.
  check("no answers", await serverStream(client, path("ServerStream"), packStream(0, 0)).all(), []);
  tally.add(path("ServerStream"), 0, [8], []);
  check("no requests", (await clientStream(client, path("ClientStream"), [])).answer, packSum(0, 0));
  tally.add(path("ClientStream"), 0, [], [12]);
  await echoed(client, []);
  tally.add(path("BidiStream"), 0, [], []);
  await together(client, tally);
  await metadata(client, tally);
}

async function echoed(client, requests) {
  const both = bidiStream(client);
  for (const each of requests) both.call.write(each);
  both.call.end();
  check("both", await both.all(), requests);
  check("both", await both.status, 0);
}

// Streams that are all open before the first one ends.
async function together(client, tally) {
  const calls = [...Array(contract.CONCURRENT).keys()].map((size) => [size, bidiStream(client)]);
  for (let turn = 0; turn < 2; turn += 1) {
    for (const [size, { call }] of calls) call.write(message(size));
    for (const [size, both] of calls) check("together", await both.next(), message(size));
  }
  for (const [size, both] of calls) {
    both.call.end();
    check("together", await both.next(), null);
    check("together", await both.status, 0);
    tally.add(path("BidiStream"), 0, [size, size], [size, size]);
  }
}

async function metadata(client, tally) {
  const sent = new grpc.Metadata();
  const entries = contract.entries();
  for (const [name, value] of entries) sent.add(name, value);
  for (let turn = 0; turn < 3; turn += 1) {
    const { answer, first, last } = await unary(client, path("Metadata"), Buffer.alloc(0), { metadata: sent });
    check("metadata", answer, packNumber(entries.length));
    for (const found of [first, last]) {
      const named = Object.entries(found.toJSON()).filter(([name]) => name.startsWith("x-"));
      check("metadata", new Map(named), new Map(entries.map(([name, value]) => [name, [value]])));
    }
    tally.add(path("Metadata"), 0, [0], [4]);
  }
}

async function endings(client, tally) {
  for (let status = 0; status < contract.STATUSES; status += 1) {
    check("status", (await unary(client, path("Fail"), Buffer.from([status]))).status, status);
    tally.add(path("Fail"), status, [1], status ? [] : [0]);
    const late = serverStream(client, path("FailLate"), Buffer.from([status]));
    check("late", await late.next(), Buffer.from("late"));
    check("late status", await late.status, status);
    tally.add(path("FailLate"), status, [1], [4]);
  }
  const withoutAnswer = [
    [path("Crash"), contract.UNKNOWN],
    [path("Missing"), contract.UNIMPLEMENTED],
    ["/calls.Nobody/Missing", contract.UNIMPLEMENTED],
  ];
  for (const [name, status] of withoutAnswer) {
    for (let size = 0; size < contract.REPEATS; size += 1) {
      check(name, (await unary(client, name, message(size))).status, status);
      // Headers go out before the message: a server that has no use for it may have answered in between.
      tally.add(name, status, status === contract.UNKNOWN ? [size] : null, []);
    }
  }
  await cancelled(client, tally);
  await expired(client, tally);
  await early(client, tally);
}

async function cancelled(client, tally) {
  for (let size = 0; size < contract.REPEATS; size += 1) {
    const hanging = serverStream(client, path("Hang"), message(size));
    await new Promise((resolve) => hanging.call.on("metadata", resolve)); // it has reached the handler
    hanging.call.cancel();
    check("cancelled", await hanging.status, contract.CANCELLED);
    tally.add(path("Hang"), contract.CANCELLED, [size], []);

    const both = bidiStream(client);
    for (let turn = 0; turn < 3; turn += 1) {
      both.call.write(message(size));
      check("before it is cancelled", await both.next(), message(size));
    }
    both.call.cancel();
    check("cancelled", await both.status, contract.CANCELLED);

    const out = serverStream(client, path("ServerStream"), ENDLESS);
    await out.next();
    out.call.cancel();
    check("cancelled", await out.status, contract.CANCELLED);
    // How many had been sent by then, nobody knows here.
    tally.add(path("ServerStream"), contract.CANCELLED, [ENDLESS.length], null);
  }
  // Node ends a stream before it resets it: the server may have answered in between, and nobody knows here.
  tally.addUncertain(path("BidiStream"), [contract.CANCELLED, contract.OK], contract.REPEATS);
}

async function expired(client, tally) {
  const calls = [];
  for (const timeout of contract.TIMEOUTS) {
    for (let turn = 0; turn < contract.REPEATS; turn += 1) {
      const hanging = serverStream(client, path("Hang"), Buffer.from("never"), { deadline: Date.now() + timeout });
      calls.push(hanging);
      // One at a time: the later a request goes out after its time was computed, the earlier it seems to give up.
      await new Promise((resolve) => hanging.call.on("metadata", resolve));
    }
  }
  for (const each of calls) {
    const status = await each.status;
    // The server may have been first, and has cancelled it then.
    check("deadline", [contract.DEADLINE_EXCEEDED, contract.CANCELLED].includes(status), true);
    tally.add(path("Hang"), status, [5], []);
  }
}

async function early(client, tally) {
  for (let turn = 0; turn < contract.REPEATS; turn += 1) {
    // No more than this: whether another one went out before the end came, nobody would know here.
    const { answer } = await clientStream(client, path("EarlyEnd"), [message(100)], { end: false });
    check("early end", answer, packSum(1, 100));
    tally.add(path("EarlyEnd"), 0, [100], [12]);
  }
}

async function reuse(client, tally, count) {
  for (let number = 0; number < Number(count); number += 1) {
    const data = message(number % 1_000);
    check("unary", (await unary(client, path("Unary"), data)).answer, data);
    tally.add(path("Unary"), 0, [data.length], [data.length]);
  }
}

async function gzip(client, tally) {
  for (const size of [1_000, 10_000, 1_000_000]) {
    const data = Buffer.alloc(size);
    const { answer } = await compressing(client, (fresh) => unary(fresh, path("Unary"), data));
    check("compressed", answer, data);
    tally.add(path("Unary"), 0, [zlib.gzipSync(data).length], [0]);
  }
  // Whether the server compresses what it can, nobody knows here.
  tally.forget(path("Unary"), 0, "response_bytes");
  for (const size of [0, 1, 4_000]) {
    const data = message(size);
    await compressing(client, (fresh) => echoed(fresh, [data]));
    // grpc-js sends it compressed although it is not shorter; servers do not.
    tally.add(path("BidiStream"), 0, [zlib.gzipSync(data).length], [size]);
  }
}

// A channel for one message. C-core lists the compressions that it takes with blanks in between; behind them grpc-js
// does not find gzip, and compresses no more after the first answer.
async function compressing(client, calls) {
  const options = contract.channelOptions(["grpc.default_compression_algorithm=2"]);
  const fresh = new grpc.Client(client.getChannel().getTarget(), grpc.credentials.createInsecure(), options);
  const found = await calls(fresh);
  fresh.close();
  return found;
}

function waiting() {
  return new grpc.Metadata({ waitForReady: true });
}

async function pings(client, tally, milliseconds) {
  for (const each of [Number(milliseconds), 1]) {
    // The second one waits for a connection, where the first one has lost its own.
    const { status } = await unary(client, path("Slow"), packNumber(each), { metadata: waiting() });
    tally.add(path("Slow"), status, [4], status ? [] : [4]);
  }
}

// Servers come and go meanwhile. What was not answered is not known to have been sent, or how far.
async function load(client, tally, count) {
  let next = 0;
  let ended = 0;
  const some = async () => {
    while (next < Number(count)) {
      const size = next % 1_000;
      next += 1;
      const { status } = await unary(client, path("Unary"), message(size), { metadata: waiting() });
      // Where a connection ends, grpc-js says either, by the error that it met; no server here says the second.
      if ([contract.UNAVAILABLE, contract.INTERNAL].includes(status)) continue;
      tally.add(path("Unary"), status, [size], status ? [] : [size]);
      ended += 1;
    }
  };
  await Promise.all(repeated(contract.LOADED, some).map((each) => each()));
  tally.addUncertain(path("Unary"), [contract.UNAVAILABLE], contract.countRequested() - ended);
}

// Several callers at once, every other call denied by who it says to be from.
async function denials(client, tally, count, said = contract.DENIAL) {
  let next = 0;
  const some = async () => {
    while (next < Number(count)) {
      const number = next;
      next += 1;
      const size = (number * 7) % 1_000;
      const allowed = number % 2 === 1;
      const metadata = new grpc.Metadata();
      metadata.set("x-caller", allowed ? `good-${number % 7}` : `bad-${number % 5}`);
      const { status, answer, details } = await unary(client, path("Unary"), message(size), { metadata });
      check("status", status, allowed ? 0 : contract.PERMISSION_DENIED);
      if (allowed) check("allowed", answer, message(size));
      else check("details", details, said);
      tally.add(path("Unary"), status, [size], allowed ? [size] : []);
    }
  };
  await Promise.all(repeated(contract.LOADED, some).map((each) => each()));
}

const STORIES = { shapes, endings, reuse, gzip, pings, load, denials };

// `words`: NAME=NUMBER, options of the channel's; others are the story's.
module.exports = async function call(story, host, port, ...words) {
  const credentials = grpc.credentials.createInsecure();
  const client = new grpc.Client(`${host}:${port}`, credentials, contract.channelOptions(words));
  const tally = new Tally();
  await STORIES[story](client, tally, ...words.filter((each) => !each.includes("=")));
  client.close();
  tally.show();
};
