// A plain client of ioredis at every node: node plain.cjs PORT...
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");

const client = (port, options) =>
  new Redis(port, "127.0.0.1", { maxRetriesPerRequest: 1, commandTimeout: 60000, ...options });

async function refused(text, promise) {
  await assert.rejects(promise, (error) => {
    assert.ok(error.message.includes(text), `${error.message}, not: ${text}`);
    return true;
  });
}

async function strings(r) {
  await r.flushall();
  assert.equal(await r.ping(), "PONG");
  assert.equal(await r.echo("hello"), "hello");
  assert.equal(await r.set("a", "1"), "OK");
  assert.equal(await r.get("a"), "1");
  assert.equal(await r.get("none"), null);
  assert.equal(await r.set("a", "2", "NX"), null);
  assert.equal(await r.set("a", "2", "XX", "GET"), "1");
  assert.equal(await r.set("a", "3", "EX", 1000), "OK");
  const ttl = await r.ttl("a");
  assert.ok(ttl > 990 && ttl <= 1000, String(ttl));
  assert.ok((await r.pttl("a")) > 990000);
  assert.ok((await r.expiretime("a")) > 1600000000);
  assert.equal(await r.set("a", "4", "KEEPTTL"), "OK");
  assert.equal(await r.persist("a"), 1);
  assert.equal(await r.ttl("a"), -1);
  assert.equal(await r.ttl("none"), -2);
  assert.equal(await r.expire("a", 500), 1);
  assert.equal(await r.expire("a", 100, "GT"), 0);
  assert.equal(await r.pexpire("a", 500000), 1);
  assert.equal(await r.getex("a", "PERSIST"), "4");
  assert.equal(await r.setex("b", 100, "x"), "OK");
  assert.equal(await r.psetex("b", 100000, "y"), "OK");
  assert.equal(await r.setnx("b", "z"), 0);
  assert.equal(await r.getset("b", "z"), "y");
  assert.equal(await r.getdel("b"), "z");
  assert.equal(await r.incr("n"), 1);
  assert.equal(await r.incrby("n", 10), 11);
  assert.equal(await r.decr("n"), 10);
  assert.equal(await r.decrby("n", 3), 7);
  assert.equal(await r.incrbyfloat("n", 0.5), "7.5");
  assert.equal(await r.append("s", "ab"), 2);
  assert.equal(await r.append("s", "cd"), 4);
  assert.equal(await r.strlen("s"), 4);
  assert.equal(await r.getrange("s", 1, 2), "bc");
  assert.equal(await r.setrange("s", 2, "XY"), 4);
  assert.equal(await r.get("s"), "abXY");
  assert.equal(await r.type("s"), "string");
  assert.equal(await r.type("none"), "none");
  const many = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`m${i}`, String(i)]));
  assert.equal(await r.mset(many), "OK");
  assert.deepEqual(await r.mget([...Object.keys(many), "none"]), [...Object.values(many), null]);
  assert.equal(await r.msetnx("{t}a", 1, "{t}b", 2), 1);
  assert.equal(await r.rename("{t}a", "{t}c"), "OK");
  assert.equal(await r.renamenx("{t}c", "{t}b"), 0);
  assert.equal(await r.copy("{t}c", "{t}d"), 1);
  assert.equal(await r.exists("m1", "m2", "none"), 2);
  assert.equal(await r.touch("m1", "m2", "none"), 2);
  assert.equal(await r.del("m1", "m2", "none"), 2);
  assert.equal(await r.unlink("m3"), 1);
  assert.equal((await r.keys("m1*")).sort().join(), Array.from({ length: 10 }, (_, i) => `m1${i}`).sort().join());
  assert.equal(await r.dbsize(), 53);
  await refused("value is not an integer or out of range", r.incr("s"));
  await refused("unknown command", r.lpush("list", 1));
  await refused("wrong number of arguments", r.call("GET"));
  await refused("CROSSSLOT", r.rename("a", "b"));
  const found = new Set();
  for await (const keys of r.scanStream({ match: "m*", count: 20 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 47);
}

async function pipelines(r) {
  const pipe = r.pipeline();
  for (let i = 0; i < 2000; i++) pipe.set(`p${i}`, i).incr("p-count").get(`p${i}`);
  const replies = await pipe.exec();
  assert.equal(replies.length, 6000);
  for (let i = 0; i < 2000; i++) {
    assert.deepEqual(replies.slice(3 * i, 3 * i + 3), [[null, "OK"], [null, i + 1], [null, String(i)]]);
  }
  // One that fails does not stop the others.
  const [set, incr, get] = await r.pipeline().set("s", "x").incr("s").get("s").exec();
  assert.deepEqual([set[1], get[1]], ["OK", "x"]);
  assert.ok(incr[0].message.includes("not an integer"));
}

async function binary(r) {
  const everything = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const big = Buffer.alloc(10_000_000, everything);
  assert.equal(await r.set(everything, big), "OK");
  assert.ok((await r.getBuffer(everything)).equals(big));
  assert.equal(await r.del(everything), 1);
}

async function main(ports) {
  for (const port of ports) {
    const r = client(port, { connectionName: "node" });
    assert.equal(await r.client("GETNAME"), "node");
    assert.ok((await r.info("server")).includes(`tcp_port:${port}`));
    await strings(r);
    await pipelines(r);
    await binary(r);
    await r.quit();
    // Requests of one turn become one pipeline.
    const auto = client(port, { enableAutoPipelining: true });
    await Promise.all(Array.from({ length: 300 }, (_, i) => auto.set(`auto${i}`, i)));
    const read = await Promise.all(Array.from({ length: 300 }, (_, i) => auto.get(`auto${i}`)));
    assert.deepEqual(read, Array.from({ length: 300 }, (_, i) => String(i)));
    await auto.quit();
  }
  console.log("done");
}

main(process.argv.slice(2).map(Number)).catch((error) => {
  console.error(error);
  process.exit(1);
});
