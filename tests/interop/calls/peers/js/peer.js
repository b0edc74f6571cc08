"use strict";

// grpc-js: peers/README.md says what it does.

const { adjustHttp2 } = require("./contract");

adjustHttp2(); // before grpc-js makes use of it

const roles = { serve: "./server", call: "./client" };

const [role, ...words] = process.argv.slice(2);
require(roles[role])(...words);
