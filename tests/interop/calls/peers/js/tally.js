"use strict";

const { isDeepStrictEqual } = require("util");

const SUMS = ["calls", "request_messages", "response_messages", "request_bytes", "response_bytes"];

// Ends the program when they differ.
function check(what, found, expected) {
  if (!isDeepStrictEqual(found, expected)) {
    const said = [found, expected].map((each) => (Buffer.isBuffer(each) ? `${each.length} bytes` : String(each)));
    throw new Error(`${what}: ${said[0]} came, not the ${said[1]} expected`);
  }
}

// Calls by path and status. Messages are given by their lengths; null: this call's are not known.
class Tally {
  constructor() {
    this._counts = new Map();
    this._uncertain = 0;
  }

  add(path, status, requests, responses) {
    const line = this._line(path, status);
    line.calls += 1;
    for (const [kind, sizes] of [["request", requests], ["response", responses]]) {
      const sums = { messages: sizes?.length, bytes: sizes?.reduce((sum, size) => sum + 5 + size, 0) };
      for (const [what, more] of Object.entries(sums)) {
        const name = `${kind}_${what}`;
        line[name] = more === undefined || line[name] === null ? null : line[name] + more;
      }
    }
  }

  // One of the sums is not known.
  forget(path, status, name) {
    this._line(path, status)[name] = null;
  }

  // So many calls of which it is not known whether they were sent, or with which of these statuses they ended; there
  // must be no certain one like them.
  addUncertain(path, statuses, count) {
    for (const status of statuses) {
      for (const name of SUMS) this.forget(path, status, name);
    }
    this._uncertain += count;
  }

  _line(path, status) {
    const key = `${status} ${path}`;
    if (!this._counts.has(key)) {
      const sums = Object.fromEntries(SUMS.map((name) => [name, 0]));
      this._counts.set(key, { method: path, grpc_status: status, ...sums });
    }
    return this._counts.get(key);
  }

  // Prints what a client prints.
  show() {
    console.log(JSON.stringify({ counts: [...this._counts.values()], uncertain: this._uncertain }));
  }
}

module.exports = { Tally, check };
