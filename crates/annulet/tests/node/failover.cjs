// ioredis, plain and cluster, while a node dies: node failover.cjs PLAIN-PORT CLUSTER-PORT...
//
// It prints `going` once every key was counted. The test kills a node and says so in a line; from then on every key has to be
// counted again, by either client. No count that was acknowledged is lost.
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");

const KEYS = 60;
let killed = false;

/** Counts in its own keys until each was counted after the death. */
async function count(r, name, onRound) {
  const done = Array(KEYS).fill(0);
  const unknown = Array(KEYS).fill(0);
  for (let last = false; !last; onRound()) {
    // A whole round has to come after the word.
    last = killed;
    for (let key = 0; key < KEYS; key++) {
      for (let counted = false; !counted; ) {
        try {
          const now = await r.incr(`${name}:${key}`);
          done[key] += 1;
          counted = true;
          assert.ok(now >= done[key] && now <= done[key] + unknown[key], `${name}:${key} is ${now}`);
        } catch (error) {
          if (error instanceof assert.AssertionError) throw error;
          unknown[key] += 1;
        }
      }
    }
  }
  for (let key = 0; key < KEYS; key++) {
    const now = Number(await r.get(`${name}:${key}`));
    assert.ok(now >= done[key] && now <= done[key] + unknown[key], `${name}:${key} ends as ${now}, not ${done[key]}`);
  }
  await r.quit();
}

async function main([plainPort, ...clusterPorts]) {
  // A request whose connection broke is not sent again by the client: it may have been done. The cluster client does so by
  // default, whatever its connections are told: an INCR would count twice.
  const plain = new Redis(plainPort, "127.0.0.1", { maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false });
  const cluster = new Redis.Cluster(
    clusterPorts.map((port) => ({ host: "127.0.0.1", port })),
    {
      clusterRetryStrategy: () => 50,
      retryDelayOnFailover: 0,
      slotsRefreshTimeout: 5000,
      redisOptions: { maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false, connectTimeout: 5000 },
    },
  );
  for (const r of [plain, cluster]) r.on("error", () => {});
  const rounds = [0, 0];
  const round = (who) => () => {
    rounds[who] += 1;
    if (rounds[who] === 1 && rounds.every((count) => count >= 1)) console.log("going");
  };
  process.stdin.once("data", () => {
    killed = true;
    process.stdin.destroy();
  });
  await Promise.all([count(plain, "plain", round(0)), count(cluster, "cluster", round(1))]);
  console.log("done");
}

main(process.argv.slice(2).map(Number)).catch((error) => {
  console.error(error);
  process.exit(1);
});
