"""redis-py's asyncio clients, plain and cluster: python3 asynchronous.py PROTOCOL PORT... (the cluster ports are 100 above)"""

import asyncio
import sys

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode, RedisCluster

PROTOCOL = int(sys.argv[1])
PORTS = [int(port) for port in sys.argv[2:]]
OPTIONS = {"decode_responses": True, "protocol": PROTOCOL, "socket_timeout": 60}


async def plain():
    nodes = [redis.Redis(port=port, **OPTIONS) for port in PORTS]
    await nodes[0].flushall()

    async def count(node, number):
        assert await node.set(f"a{number}", number, ex=100) is True
        assert await node.incr(f"a{number}") == number + 1
        assert 0 < await node.ttl(f"a{number}") <= 100
        return await node.incrby("all", number)

    # Many at once over a pool of each node.
    await asyncio.gather(*[count(nodes[number % len(nodes)], number) for number in range(300)])
    assert await nodes[1].get("all") == str(sum(range(300)))
    async with nodes[2].pipeline(transaction=False) as pipe:
        for number in range(300):
            pipe.get(f"a{number}")
        assert await pipe.execute() == [str(number + 1) for number in range(300)]
    found = {key async for key in nodes[0].scan_iter(match="a[0-9]*", count=50)}
    assert len(found) == 300, len(found)
    try:
        await nodes[0].incr("a0", "x")
        raise AssertionError("not refused")
    except redis.ResponseError as error:
        assert "not an integer" in str(error)
    for node in nodes:
        await node.aclose()


async def cluster():
    at = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", PORTS[0] + 100)], **OPTIONS)
    async with at:
        assert sorted(node.port for node in at.get_primaries()) == sorted(port + 100 for port in PORTS)

        async def count(number):
            assert await at.set(f"c{number}", number)
            assert await at.incr(f"c{number}") == number + 1
            return await at.get(f"c{number}")

        told = await asyncio.gather(*[count(number) for number in range(300)])
        assert told == [str(number + 1) for number in range(300)]
        assert await at.mget_nonatomic([f"c{number}" for number in range(300)]) == told
        assert await at.delete(*[f"{{tag}}{number}" for number in range(5)]) == 0
        pipe = at.pipeline()
        for number in range(300):
            pipe.get(f"c{number}")
        assert await pipe.execute() == told


async def main():
    await plain()
    await cluster()


asyncio.run(main())
print("done")
