// Chromium without a window, told what to do over its debugging pipe (Chrome DevTools Protocol:
// JSON messages, each ended by a NUL, written to descriptor 3 and read from 4). The page is the
// server's own /health, so that its origin is the server's. Prints what the page saw as JSON.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { collect } from "./collect.mjs";

const [addr, chromium] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), "odin-ws-chromium-"));
const browser = spawn(
  chromium,
  [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    `--user-data-dir=${profile}`,
    "--remote-debugging-pipe",
  ],
  { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] },
);
let log = "";
browser.stderr.on("data", (bytes) => (log += bytes));

const waiting = new Map();
const events = new Map();
let unread = "";
browser.stdio[4].setEncoding("utf8").on("data", (text) => {
  const messages = (unread + text).split("\0");
  unread = messages.pop();
  for (const message of messages.map(JSON.parse)) {
    if (message.id !== undefined) {
      const { resolve, reject } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) reject(new Error(message.error.message));
      else resolve(message.result);
    } else {
      events.get(message.method)?.(message.params);
    }
  }
});
const ended = once(browser, "exit");
const gone = ended.then(([code]) => {
  throw new Error(`Chromium ended with ${code}:\n${log}`);
});

let calls = 0;
function call(method, params = {}, sessionId = undefined) {
  const id = ++calls;
  const answer = new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
  browser.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  return answer;
}

async function visit() {
  const { product } = await call("Browser.getVersion");
  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true });
  await call("Page.enable", {}, sessionId);
  const loaded = new Promise((resolve) => events.set("Page.loadEventFired", resolve));
  const { errorText } = await call("Page.navigate", { url: `http://${addr}/health` }, sessionId);
  if (errorText) throw new Error(`/health: ${errorText}`);
  await loaded;
  const expression = `(${collect})(WebSocket, "ws://${addr}/ws")`;
  const { result, exceptionDetails } = await call(
    "Runtime.evaluate",
    { expression, awaitPromise: true, returnByValue: true },
    sessionId,
  );
  if (exceptionDetails) throw new Error(exceptionDetails.exception.description);
  return { ...result.value, product };
}

try {
  const seen = await Promise.race([visit(), gone]);
  console.log(JSON.stringify(seen));
} finally {
  gone.catch(() => {});
  browser.kill("SIGKILL");
  await ended;
  rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
}
