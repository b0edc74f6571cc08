"use strict";

const grpc = require("@grpc/grpc-js");
const { channelOptions, identity, message, packNumber, packSum, path } = require("./contract");

const GRACE_MS = 1_000;
const LATE_MS = 50;

const handled = {};
const endings = { cancelled: 0, expired: 0 };

function failure(code) {
  return { code, details: "as asked for" };
}

function unary(call, answer) {
  answer(null, call.request);
}

function serverStream(call) {
  let left = call.request.readUInt32BE(0);
  const data = message(call.request.readUInt32BE(4));
  const more = () => {
    while (!call.cancelled && left > 0) {
      left -= 1;
      if (!call.write(data)) {
        call.once("drain", more);
        return;
      }
    }
    call.end();
  };
  more();
}

function clientStream(call, answer) {
  let count = 0;
  let size = 0;
  call.on("data", (data) => {
    count += 1;
    size += data.length;
  });
  call.on("end", () => answer(null, packSum(count, size)));
}

function bidiStream(call) {
  call.on("data", (data) => {
    if (!call.write(data)) {
      call.pause();
      call.once("drain", () => call.resume());
    }
  });
  call.on("end", () => call.end());
}

function fail(call, answer) {
  const status = call.request[0];
  answer(status ? failure(status) : null, Buffer.alloc(0));
}

function failLate(call) {
  const status = call.request[0];
  call.write(Buffer.from("late"));
  if (status) call.emit("error", failure(status));
  else call.end();
}

function crash() {
  throw new Error("on purpose");
}

function metadata(call, answer) {
  const found = new grpc.Metadata();
  let count = 0;
  for (const [name, values] of Object.entries(call.metadata.toJSON())) {
    if (!name.startsWith("x-")) continue;
    for (const each of values) found.add(name, each);
    count += values.length;
  }
  call.sendMetadata(found);
  answer(null, packNumber(count), found);
}

function slow(call, answer) {
  setTimeout(() => answer(null, call.request), call.request.readUInt32BE(0));
}

function hang(call) {
  call.sendMetadata(new grpc.Metadata());
  // Also when grpc-js has ended the call itself, at its deadline.
  call.once("cancelled", () => {
    endings[Date.now() >= call.getDeadline() - LATE_MS ? "expired" : "cancelled"] += 1;
  });
}

function earlyEnd(call, answer) {
  call.once("data", (data) => answer(null, packSum(1, data.length)));
}

// Name, function, whether requests and responses are streams.
const METHODS = [
  ["Unary", unary, false, false],
  ["ServerStream", serverStream, false, true],
  ["ClientStream", clientStream, true, false],
  ["BidiStream", bidiStream, true, true],
  ["Fail", fail, false, false],
  ["FailLate", failLate, false, true],
  ["Crash", crash, false, false],
  ["Metadata", metadata, false, false],
  ["Slow", slow, false, false],
  ["Hang", hang, false, false],
  ["EarlyEnd", earlyEnd, true, false],
];

function register(server) {
  const definition = {};
  const functions = {};
  for (const [name, handle, requestStream, responseStream] of METHODS) {
    definition[name] = {
      path: path(name),
      requestStream,
      responseStream,
      requestSerialize: identity,
      requestDeserialize: identity,
      responseSerialize: identity,
      responseDeserialize: identity,
    };
    functions[name] = (call, answer) => {
      handled[name] = (handled[name] || 0) + 1;
      handle(call, answer);
    };
  }
  server.addService(definition, functions);
}

// `words`: NAME=NUMBER, options of the server's.
module.exports = function serve(host, port, ...words) {
  const server = new grpc.Server(channelOptions(words));
  register(server);
  server.bindAsync(`${host}:${port}`, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
  });
  process.once("SIGTERM", () => {
    setTimeout(() => server.forceShutdown(), GRACE_MS).unref();
    server.tryShutdown((error) => {
      if (error) throw error;
      console.log(JSON.stringify({ handled, ...endings }));
      process.exit(0);
    });
  });
};
