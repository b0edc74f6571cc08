// Node's http and http2 (cleartext), server and client.
//   node web.mjs serve PORT PORT2 FOLDER      HTTP/1.1 and HTTP/2
//   node web.mjs fetch PORT PORT2 FOLDER      prints {"requests": n}
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";

const [mode, port, port2, folder] = process.argv.slice(2);
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const file = (name) => readFileSync(`${folder}/${name}`);

function answer(request, response) {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    response.end(request.method === "PUT" ? sha256(Buffer.concat(chunks)) : file(request.url.slice(1)));
  });
}

const collect = (stream) =>
  new Promise((done, fail) => {
    const chunks = [];
    stream.on("data", (chunk) => chunks.push(chunk));
    stream.on("end", () => done(Buffer.concat(chunks)));
    stream.on("error", fail);
  });

const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
const over1 = (method, path, body) =>
  new Promise((done, fail) => {
    const request = http.request({ host: "127.0.0.1", port, method, path, agent }, (response) =>
      collect(response).then(done, fail));
    request.on("error", fail);
    request.end(body);
  });

const over2 = (session) => (method, path, body) => {
  const stream = session.request({ ":method": method, ":path": path });
  stream.end(body);
  return collect(stream);
};

async function fetchAll(exchange, sums) {
  let requests = 0;
  const one = async (name) => {
    if (sha256(await exchange("GET", `/${name}`)) !== sums[name]) throw new Error(`GET ${name}: wrong bytes`);
    if ((await exchange("PUT", "/sum", file(name))).toString() !== sums[name]) throw new Error(`PUT ${name}: wrong bytes`);
    requests += 2;
  };
  for (let i = 0; i < 100; i++) await one("small");
  const names = [...Array(40)].flatMap(() => ["tiny", "small", "medium"]);
  await Promise.all([...names, "large", "large"].map(one));
  return requests;
}

if (mode === "serve") {
  http.createServer(answer).listen(port);
  http2.createServer({ maxSessionMemory: 200 }, answer).listen(port2);
} else {
  const sums = JSON.parse(file("sums.json"));
  const session = http2.connect(`http://127.0.0.1:${port2}`, { maxSessionMemory: 200 });
  const requests = (await fetchAll(over1, sums)) + (await fetchAll(over2(session), sums));
  session.close();
  agent.destroy();
  console.log(JSON.stringify({ requests }));
}
