"use strict";

// Calls by path, whose messages are bytes.

const grpc = require("@grpc/grpc-js");
const { identity, path } = require("./contract");

// A unary call: `answer` is null unless its status is 0; `first` and `last`: metadata.
function unary(client, name, request, { metadata = new grpc.Metadata(), ...options } = {}) {
  return new Promise((resolve) => {
    const found = { answer: null, first: null };
    const call = client.makeUnaryRequest(name, identity, identity, request, metadata, options, (error, answer) => {
      found.answer = error ? null : answer;
    });
    call.on("metadata", (first) => (found.first = first));
    call.on("status", ({ code, details, metadata: last }) => resolve({ ...found, status: code, details, last }));
  });
}

// What comes back on a stream, and how it ends.
class Answers {
  constructor(call) {
    this.call = call;
    this.status = new Promise((resolve) => call.on("status", ({ code }) => resolve(code)));
    call.on("error", () => {}); // says what the status says
    this._answers = call[Symbol.asyncIterator]();
  }

  // The next message; null: there are no more.
  async next() {
    try {
      const { value, done } = await this._answers.next();
      return done ? null : value;
    } catch {
      return null;
    }
  }

  async all() {
    const found = [];
    for (let each = await this.next(); each !== null; each = await this.next()) found.push(each);
    return found;
  }
}

function serverStream(client, name, request, options = {}) {
  return new Answers(client.makeServerStreamRequest(name, identity, identity, request, options));
}

function bidiStream(client) {
  return new Answers(client.makeBidiStreamRequest(path("BidiStream"), identity, identity));
}

// A call whose requests are a stream, which `end` ends.
function clientStream(client, name, requests, { end = true } = {}) {
  return new Promise((resolve) => {
    let found = null;
    const call = client.makeClientStreamRequest(name, identity, identity, (error, answer) => {
      found = error ? null : answer;
    });
    call.on("status", ({ code }) => resolve({ status: code, answer: found }));
    for (const each of requests) call.write(each);
    if (end) call.end();
  });
}

module.exports = { bidiStream, clientStream, serverStream, unary };
