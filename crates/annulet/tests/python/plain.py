"""A plain client of redis-py at every node: python3 plain.py PROTOCOL PORT..."""

import sys
import threading

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PROTOCOL = int(sys.argv[1])
PORTS = [int(port) for port in sys.argv[2:]]


def client(port, **options):
    options.setdefault("decode_responses", True)
    return redis.Redis(port=port, protocol=PROTOCOL, socket_timeout=60, **options)


def refused(error, call):
    try:
        call()
    except redis.ResponseError as caught:
        assert error in str(caught), caught
    else:
        raise AssertionError(f"not refused: {error}")


def strings(r):
    r.flushall()
    assert r.ping() is True
    assert r.echo("hello") == "hello"
    assert r.set("a", "1") is True
    assert r.get("a") == "1"
    assert r.get("none") is None
    assert r.set("a", "2", nx=True) is None
    assert r.set("a", "2", xx=True) is True
    assert r.set("a", "3", get=True) == "2"
    assert r.set("a", "4", ex=1000) is True
    assert 990 < r.ttl("a") <= 1000
    assert r.set("a", "5", keepttl=True) is True
    assert r.pttl("a") > 990_000
    assert r.persist("a") is True
    assert r.ttl("a") == -1
    assert r.expire("a", 500) is True
    assert r.expire("a", 100, gt=True) is False
    assert r.pexpire("a", 500_000) is True
    assert r.ttl("none") == -2
    assert r.incr("n") == 1
    assert r.incrby("n", 10) == 11
    assert r.decr("n") == 10
    assert r.decrby("n", 3) == 7
    assert r.append("s", "ab") == 2
    assert r.append("s", "cd") == 4
    assert r.strlen("s") == 4
    assert r.type("s") == "string"
    assert r.type("none") == "none"
    assert r.mset({f"m{i}": i for i in range(50)}) is True
    assert r.mget([f"m{i}" for i in range(50)] + ["none"]) == [str(i) for i in range(50)] + [None]
    assert r.exists("m1", "m2", "none") == 2
    assert r.delete("m1", "m2", "none") == 2
    assert r.dbsize() == 51
    assert sorted(r.keys("m1*")) == sorted(f"m1{i}" for i in range(10))
    assert "m3" in r and "m1" not in r
    r["item"] = "x"
    assert r["item"] == "x"
    del r["item"]
    refused("value is not an integer or out of range", lambda: r.incr("s"))
    refused("unknown command", lambda: r.lpush("list", 1))
    refused("unknown command", lambda: r.execute_command("NOPE", "a"))
    refused("wrong number of arguments", lambda: r.execute_command("GET"))


def server(r, port):
    info = r.info()
    assert info["redis_mode"] == "standalone" and info["tcp_port"] == port, info
    assert info["loading"] == 0 and info["cluster_enabled"] == 0
    assert r.info("memory")["used_memory"] > 0
    assert r.config_get("maxmemory") == {"maxmemory": "0"}
    assert r.config_get("copies", "partitions") == {"copies": "2", "partitions": "1024"}
    assert r.command_count() > 30
    assert r.command()["get"]["arity"] == 2
    assert r.client_id() > 0
    assert r.client_setname("py") is True
    assert r.client_getname() == "py"
    # The connection named the library when it was made.
    said = r.client_info()
    assert said["lib-name"] == "redis-py" and said["lib-ver"] == redis.__version__, said
    assert said["resp"] == str(PROTOCOL), said
    assert r.wait(1, 1000) == 1
    assert r.select(0)
    assert r.execute_command("CONSISTENCY", "READ", "stale") == "OK"
    assert r.execute_command("CONSISTENCY", "READ", "linearizable") == "OK"


def pipelines(r):
    pipe = r.pipeline(transaction=False)
    for i in range(3000):
        pipe.set(f"p{i}", i).incr("p-count").get(f"p{i}").mget(f"p{i}", f"p{i - 1}")
    replies = pipe.execute()
    for i in range(3000):
        before = str(i - 1) if i > 0 else None
        assert replies[4 * i : 4 * i + 4] == [True, i + 1, str(i), [str(i), before]], i
    # One that fails does not stop the others.
    pipe = r.pipeline(transaction=False)
    replies = pipe.set("s", "x").incr("s").get("s").execute(raise_on_error=False)
    assert replies[0] is True and isinstance(replies[1], redis.ResponseError) and replies[2] == "x"
    # Transactions are not there: the error says so, and the connection goes on.
    refused("MULTI is not supported yet", lambda: r.pipeline(transaction=True).set("t", 1).execute())
    assert r.get("t") is None, "nothing of a refused transaction is run"
    assert r.ping() is True
    assert len(set(r.scan_iter(match="p1*", count=100))) == 1111
    assert len(set(r.scan_iter())) == r.dbsize()


def binary(port):
    r = client(port, decode_responses=False)
    everything = bytes(range(256))
    assert r.set(everything, everything[::-1]) is True
    assert r.get(everything) == everything[::-1]
    big = everything * 40_000
    assert r.set("big", big) is True
    assert r.get("big") == big
    assert r.delete("big", everything) == 2


def connections(port):
    # Health checks before commands, a name, a pool that threads share.
    r = client(port, health_check_interval=0.001, client_name="pool", retry=Retry(NoBackoff(), 0))
    assert r.client_getname() == "pool"
    failures = []

    def count():
        try:
            for _ in range(100):
                r.incr("threads")
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=count) for _ in range(5)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures, failures
    assert r.get("threads") == "500"
    r.close()
    single = client(port, single_connection_client=True)
    assert single.ping()
    single.close()


for port in PORTS:
    with client(port) as r:
        strings(r)
        server(r, port)
        pipelines(r)
    binary(port)
    connections(port)
print("done")
