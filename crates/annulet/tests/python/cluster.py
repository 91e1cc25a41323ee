"""redis-py's cluster client: python3 cluster.py PROTOCOL PORT..."""

import sys
import time

import redis
from redis.cluster import ClusterNode, RedisCluster

PROTOCOL = int(sys.argv[1])
PORTS = [int(port) for port in sys.argv[2:]]


def client(**options):
    # One node is known at first; the others are found.
    return RedisCluster(
        startup_nodes=[ClusterNode("127.0.0.1", PORTS[0])],
        decode_responses=True,
        protocol=PROTOCOL,
        socket_timeout=60,
        **options,
    )


r = client()
assert sorted(node.port for node in r.get_primaries()) == sorted(PORTS)
r.flushall(target_nodes=RedisCluster.PRIMARIES)
assert r.ping(target_nodes=RedisCluster.ALL_NODES)
for i in range(300):
    assert r.set(f"c{i}", i) is True
    assert r.incr(f"c{i}") == i + 1
    assert r.get(f"c{i}") == str(i + 1)
assert r.mget_nonatomic([f"c{i}" for i in range(300)]) == [str(i + 1) for i in range(300)]
assert r.mset_nonatomic({f"d{i}": i for i in range(100)})
assert r.exists(*[f"d{i}" for i in range(100)]) == 100
assert r.delete(*[f"d{i}" for i in range(100)]) == 100
assert r.mset({"{tag}a": 1, "{tag}b": 2}) is True
assert r.mget("{tag}a", "{tag}b") == ["1", "2"]
try:
    r.mset({"a": 1, "b": 2})
    raise AssertionError("not refused")
except redis.exceptions.RedisClusterException:
    pass
assert r.dbsize(target_nodes=RedisCluster.PRIMARIES) == 302
assert len(r.keys("c*", target_nodes=RedisCluster.PRIMARIES)) == 300
assert len(set(r.scan_iter(match="c*", count=50))) == 300

pipe = r.pipeline()
for i in range(1000):
    pipe.set(f"p{i}", i)
    pipe.get(f"p{i}")
replies = pipe.execute()
assert all(replies[2 * i] is True and replies[2 * i + 1] == str(i) for i in range(1000))

assert r.cluster_keyslot("foo") == 12182
assert r.cluster_countkeysinslot(r.cluster_keyslot("{tag}a")) >= 2
info = r.cluster_info(target_nodes=r.get_primaries()[0])
assert info["cluster_state"] == "ok" and info["cluster_slots_assigned"] == "16384", info
nodes = r.cluster_nodes()
assert {int(address.split(":")[1]) for address in nodes} == set(PORTS), nodes
assert all("master" in node["flags"] and node["connected"] for node in nodes.values())
assert len(r.cluster_shards()) == len(PORTS)
assert len(r.cluster_myid(target_node=r.get_primaries()[0])) == 40

# A client whose map is wrong follows the redirection. (Over RESP3 redis-py 5.2.1 takes MOVED for any other
# error, whatever the server.)
if PROTOCOL == 2:
    slot = r.keyslot("c7")
    right = r.nodes_manager.slots_cache[slot][0]
    wrong = next(node for node in r.get_primaries() if node.port != right.port)
    r.nodes_manager.slots_cache[slot] = [wrong]
    assert r.get("c7") == "8"

# Backups answer readers that ask for it; they may be a little behind.
stale = client(read_from_replicas=True)
deadline = time.monotonic() + 60
for i in range(300):
    while stale.get(f"c{i}") != str(i + 1):
        assert time.monotonic() < deadline
stale.close()
r.close()
print("done")
