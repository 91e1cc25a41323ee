// ioredis' cluster client: node cluster.cjs PORT...
"use strict";

const assert = require("node:assert/strict");
const { Cluster } = require("ioredis");

async function main(ports) {
  // One node is known at first; the others are found.
  const r = new Cluster([{ host: "127.0.0.1", port: ports[0] }], { redisOptions: { commandTimeout: 60000 } });
  await r.set("first", 1);
  assert.deepEqual(r.nodes("all").map((node) => node.options.port).sort(), [...ports].sort());
  // Those that serve slots: a node that was away for a while may have none.
  const masters = r.nodes("master");
  const serving = new Set((await masters[0].cluster("SLOTS")).map(([, , [, port]]) => port));
  assert.deepEqual(masters.map((node) => node.options.port).sort(), [...serving].sort());
  assert.ok(masters.length > 1);
  await Promise.all(masters.map((node) => node.flushall()));
  for (let i = 0; i < 300; i++) {
    assert.equal(await r.set(`c${i}`, i), "OK");
    assert.equal(await r.incr(`c${i}`), i + 1);
    assert.equal(await r.get(`c${i}`), String(i + 1));
  }
  assert.equal(await r.expire("c0", 100), 1);
  assert.equal(await r.append("c1", "x"), 2);
  assert.equal(await r.mset("{tag}a", 1, "{tag}b", 2), "OK");
  assert.deepEqual(await r.mget("{tag}a", "{tag}b"), ["1", "2"]);
  await assert.rejects(r.rename("c1", "c2"), /CROSSSLOT/);
  const sizes = await Promise.all(masters.map((node) => node.dbsize()));
  assert.equal(sizes.reduce((sum, size) => sum + size), 302);
  assert.ok(sizes.every((size) => size > 0), String(sizes));
  const found = new Set();
  for (const node of masters) {
    for await (const keys of node.scanStream({ match: "c*" })) keys.forEach((key) => found.add(key));
  }
  assert.equal(found.size, 300);
  // A pipeline goes to one node.
  const pipe = r.pipeline();
  for (let i = 0; i < 500; i++) pipe.incr("{tag}n").set(`{tag}${i}`, i).get(`{tag}${i}`);
  const replies = await pipe.exec();
  for (let i = 0; i < 500; i++) {
    assert.deepEqual(replies.slice(3 * i, 3 * i + 3), [[null, i + 1], [null, "OK"], [null, String(i)]]);
  }
  // The wrong node says where to go, and the client goes there.
  const plain = masters.map((node) => node.get("c7").then((value) => value, (error) => error.message));
  const answers = await Promise.all(plain);
  assert.equal(answers.filter((answer) => answer === "8").length, 1, String(answers));
  assert.equal(answers.filter((answer) => answer.startsWith("MOVED ")).length, masters.length - 1, String(answers));
  const right = masters[answers.indexOf("8")].options;
  const other = masters.find((node) => node.options.port !== right.port).options;
  let moved = 0;
  const saved = r.slots.map((nodes) => nodes && [...nodes]);
  for (let slot = 0; slot < 16384; slot++) r.slots[slot] = [`127.0.0.1:${other.port}`];
  r.on("+node", () => {});
  const handle = r.handleError;
  r.handleError = function (error, ...rest) {
    if (error.message.startsWith("MOVED ")) moved += 1;
    return handle.call(this, error, ...rest);
  };
  assert.equal(await r.get("c7"), "8");
  assert.ok(moved > 0, "it was not redirected");
  r.slots = saved;
  await r.quit();
  console.log("done");
}

main(process.argv.slice(2).map(Number)).catch((error) => {
  console.error(error);
  process.exit(1);
});
