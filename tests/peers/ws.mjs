// The npm package `ws`, which scripts/test installs into .venv: prints what it saw as JSON.

import { createRequire } from "node:module";

import { collect } from "./collect.mjs";

const require = createRequire(new URL("../../.venv/", import.meta.url));
const WebSocket = require("ws");

class Offering extends WebSocket {
  constructor(url) {
    super(url, { perMessageDeflate: { threshold: 0 } });
  }
}

console.log(JSON.stringify(await collect(Offering, process.argv[2])));
