"""Package annulet.v1, by stubs made of the product's own description; with health and reflection."""

import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from stubs import GRPC_PORTS, PORTS, PROTO, channel, make, refused, resp, until

make(PROTO, "annulet/v1/annulet.proto")
from annulet.v1 import annulet_pb2 as pb  # noqa: E402
from annulet.v1 import annulet_pb2_grpc as rpc  # noqa: E402

CHANNELS = [channel(port) for port in GRPC_PORTS]
KV = [rpc.KVStub(each) for each in CHANNELS]
CLUSTER = [rpc.ClusterStub(each) for each in CHANNELS]


def get(at, key, **options):
    told = KV[at].Get(pb.GetRequest(key=key, **options))
    return told.entry if told.HasField("entry") else None


def put(at, key, value, **options):
    return KV[at].Put(pb.PutRequest(key=key, value=value, **options))


def values():
    for at in range(3):
        for key, value in [(b"\x00\xff", b"\xfe\x00"), (b"", b""), (b"k", b"x" * 5_000_000)]:
            told = put(at, key, value)
            assert told.applied and told.version > 0, told
            for other in range(3):
                entry = get(other, key)
                assert (entry.key, entry.value, entry.version) == (key, value, told.version)
                assert entry.written_at_ms == told.version >> 16 and not entry.HasField("ttl_ms")
                assert resp(PORTS[other]).get(key) == value
    assert get(0, b"none") is None


def conditions():
    first = put(0, b"c", b"1", if_absent=True)
    assert first.applied
    assert not put(1, b"c", b"2", if_absent=True).applied
    assert put(1, b"c", b"2", if_absent=False).applied, "a condition that is not set"
    second = put(2, b"c", b"3", if_present=True)
    assert second.applied and second.version > first.version
    told = put(0, b"c", b"4", if_version=first.version)
    assert not told.applied and told.version == 0, told
    assert get(1, b"c").value == b"3"
    third = put(1, b"c", b"4", if_version=second.version)
    assert third.applied and get(2, b"c").value == b"4"
    assert not put(1, b"absent", b"1", if_present=True).applied and get(0, b"absent") is None
    told = KV[2].Delete(pb.DeleteRequest(key=b"c", if_version=second.version))
    assert not told.deleted and told.found, told
    told = KV[2].Delete(pb.DeleteRequest(key=b"c", if_version=third.version))
    assert told.deleted and told.found, told
    told = KV[0].Delete(pb.DeleteRequest(key=b"c"))
    assert not told.deleted and not told.found, told


def expiry():
    put(0, b"t", b"1", ttl_ms=1_000_000)
    assert 0 < get(1, b"t").ttl_ms <= 1_000_000
    put(1, b"t", b"2", keep_ttl=True)
    assert 0 < get(2, b"t").ttl_ms <= 1_000_000
    put(2, b"t", b"3")
    assert not get(0, b"t").HasField("ttl_ms")
    put(0, b"t", b"4", ttl_ms=1)
    until("its end", lambda: get(1, b"t") is None)
    request = pb.PutRequest(key=b"t", value=b"1", ttl_ms=0)
    refused(grpc.StatusCode.INVALID_ARGUMENT, "ERR invalid expire time", KV[0].Put, request)


def levels():
    for level in (pb.WRITE_LEVEL_ALL, pb.WRITE_LEVEL_QUORUM, pb.WRITE_LEVEL_ONE):
        version = put(0, b"l", str(level).encode(), write_level=level).version
        # A linearizable read of any node waits for what it sees.
        assert get(1, b"l", read_level=pb.READ_LEVEL_LINEARIZABLE).version == version
    for at in range(3):
        until("a stale read that is up to date", lambda: get(at, b"l", read_level=pb.READ_LEVEL_STALE).version == version)

        def young(key):
            told = KV[at].Get(pb.GetRequest(key=key, read_level=pb.READ_LEVEL_STALE))
            return told.HasField("age_ms") and told.age_ms < 5_000

        for key in (b"l", b"none"):
            until("a stale read that knows its age", lambda: young(key))
        assert not KV[at].Get(pb.GetRequest(key=b"l")).HasField("age_ms")
    assert KV[0].Delete(pb.DeleteRequest(key=b"l", write_level=pb.WRITE_LEVEL_ONE)).deleted
    refused(grpc.StatusCode.INVALID_ARGUMENT, "no read level 9", KV[0].Get, pb.GetRequest(key=b"l", read_level=9))


def batches():
    def operation(**what):
        return pb.Operation(**what)

    puts = [operation(put=pb.PutRequest(key=f"b{n}".encode(), value=f"{n}".encode())) for n in range(300)]
    told = KV[0].Batch(pb.BatchRequest(operations=puts))
    assert len(told.results) == 300 and all(each.put.applied for each in told.results)
    mixed = [
        operation(put=pb.PutRequest(key=b"b0", value=b"new")),
        operation(get=pb.GetRequest(key=b"b0")),
        operation(put=pb.PutRequest(key=b"b0", value=b"newer", if_absent=True)),
        operation(delete=pb.DeleteRequest(key=b"b0")),
        operation(get=pb.GetRequest(key=b"b0")),
        operation(get=pb.GetRequest(key=b"b7")),
        operation(get=pb.GetRequest(key=b"k" * 70_000)),
        operation(put=pb.PutRequest(key=b"b0", value=b"last")),
    ]
    results = KV[1].Batch(pb.BatchRequest(operations=mixed)).results
    assert results[0].put.applied and results[1].get.entry.value == b"new"
    assert results[1].get.entry.version == results[0].put.version
    assert results[2].WhichOneof("result") == "put" and not results[2].put.applied
    assert results[3].delete.deleted and not results[4].get.HasField("entry")
    assert results[5].get.entry.value == b"7"
    assert results[6].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0], results[6]
    assert results[6].error.message.startswith("ERR key is longer"), results[6]
    assert results[7].put.applied and get(2, b"b0").value == b"last"
    assert len(KV[0].Batch(pb.BatchRequest()).results) == 0
    empty = pb.BatchRequest(operations=[pb.Operation()])
    refused(grpc.StatusCode.INVALID_ARGUMENT, "operation 0", KV[0].Batch, empty)
    many = pb.BatchRequest(operations=[operation(get=pb.GetRequest(key=b"a"))] * 10_001)
    refused(grpc.StatusCode.INVALID_ARGUMENT, "10000", KV[0].Batch, many)


def scans():
    resp(PORTS[0]).flushall()
    expected = {f"scan:{n}".encode(): (f"{n}" * 50).encode() for n in range(2000)}
    operations = [pb.Operation(put=pb.PutRequest(key=key, value=value)) for key, value in expected.items()]
    KV[0].Batch(pb.BatchRequest(operations=operations))
    others = {b"scan*": b"1", b"sca": b"2", b"scan": b"3"}
    for key, value in others.items():
        put(1, key, value)
    for at in range(3):
        shown, cursors = {}, []
        for message in KV[at].Scan(pb.ScanRequest(prefix=b"scan:", page_size=100)):
            shown.update({entry.key: entry.value for entry in message.entries})
            cursors += [message.cursor] if message.HasField("cursor") else []
        assert shown == expected, (len(shown), len(expected))
        assert len(cursors) > 10 and cursors[-1] == 0 and 0 not in cursors[:-1]
        # Broken off in the middle and gone on with at another node.
        shown, cursor = {}, 0
        stream = KV[at].Scan(pb.ScanRequest(prefix=b"scan:", page_size=100))
        for message in stream:
            shown.update({entry.key: entry.version for entry in message.entries})
            if message.HasField("cursor") and len(shown) >= 500:
                cursor = message.cursor
                stream.cancel()
                break
        assert cursor != 0 and len(shown) < 2000
        for message in KV[(at + 1) % 3].Scan(pb.ScanRequest(prefix=b"scan:", cursor=cursor)):
            shown.update({entry.key: entry.version for entry in message.entries})
        assert shown.keys() == expected.keys()
        assert shown[b"scan:77"] == get(at, b"scan:77").version
    literal = [entry.key for message in KV[0].Scan(pb.ScanRequest(prefix=b"scan*")) for entry in message.entries]
    assert literal == [b"scan*"], literal
    keys = [e for m in KV[0].Scan(pb.ScanRequest(keys_only=True)) for e in m.entries]
    assert {entry.key for entry in keys} == expected.keys() | others.keys()
    assert all(entry.value == b"" and entry.version == 0 for entry in keys)
    stale = pb.ScanRequest(prefix=b"sca", read_level=pb.READ_LEVEL_STALE)
    until(
        "a stale scan that shows all",
        lambda: len({e.key for m in KV[2].Scan(stale) for e in m.entries}) == len(expected) + len(others),
    )
    # Values that together are larger than a message should be come in several.
    for n in range(6):
        put(0, f"large:{n}".encode(), b"x" * 700_000)
    messages = list(KV[1].Scan(pb.ScanRequest(prefix=b"large:", page_size=10_000)))
    assert sum(len(message.entries) for message in messages) == 6
    assert all(len(message.entries) <= 2 for message in messages)
    for wrong in (pb.ScanRequest(page_size=10_001), pb.ScanRequest(cursor=2**63 + 16383), pb.ScanRequest(read_level=7)):
        refused(grpc.StatusCode.INVALID_ARGUMENT, "", lambda *args, **named: list(KV[0].Scan(*args, **named)), wrong)


def errors():
    none = CHANNELS[0].unary_unary("/nothing.Here/Ever")
    refused(grpc.StatusCode.UNIMPLEMENTED, "no such service", none, b"")
    no_method = CHANNELS[0].unary_unary("/annulet.v1.KV/Nope")
    refused(grpc.StatusCode.UNIMPLEMENTED, "", no_method, b"")
    garbage = CHANNELS[0].unary_unary("/annulet.v1.KV/Get")
    refused(grpc.StatusCode.INTERNAL, "", garbage, b"\xff\xff\xff\xff")
    zipped = pb.PutRequest(key=b"a", value=b"x" * 1000)
    refused(grpc.StatusCode.UNIMPLEMENTED, "compressed", KV[0].Put, zipped, compression=grpc.Compression.Gzip)
    large = pb.PutRequest(key=b"a", value=b"x" * 17_000_000)
    refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "max_request_bytes", KV[0].Put, large)


def cluster():
    for at in range(3):
        told = CLUSTER[at].Status(pb.StatusRequest())
        assert told.ok and told.copies == 2 and told.min_in_sync == 1 and len(told.cluster_id) == 40, told
        assert told.partitions.total == told.partitions.served == 32 and told.partitions.at_risk == 0, told
        assert [node.id for node in told.nodes] == [1, 2, 3] and told.coordinator in (1, 2, 3), told
        assert sum(node.primaries for node in told.nodes) == 32 and sum(node.copies for node in told.nodes) == 64
        assert all(node.state == pb.NODE_STATE_ACTIVE and node.weight == 1 for node in told.nodes), told
        assert [node.port for node in told.nodes] == PORTS, told
        assert [node.http_port for node in told.nodes] == GRPC_PORTS, told
        assert all(node.line_port > 0 for node in told.nodes), told
    assert told.map_version > 0 and told.HasField("moves")

    def status():
        return CLUSTER[1].Status(pb.StatusRequest())

    def ordered(order, request, what, is_so):
        """An order may be lost where the lead passes from one node to another: then it is given again."""
        given_at = None

        def obeyed():
            nonlocal given_at
            if given_at is None or time.monotonic() - given_at > 10:
                order(request)
                given_at = time.monotonic()
            return is_so(status())

        until(what, obeyed)

    def of_copies(copies, min_in_sync):
        request = pb.SetRequest(copies=copies, min_in_sync=min_in_sync)
        return request, f"{copies} copies", lambda told: (told.copies, told.min_in_sync) == (copies, min_in_sync)

    ordered(CLUSTER[0].Set, *of_copies(3, 2))
    until("three copies in sync", lambda: status().partitions.short == 0)
    ordered(CLUSTER[2].Set, *of_copies(2, 1))
    until("rest with two copies", lambda: status().moves.left == 0)
    refused(grpc.StatusCode.INVALID_ARGUMENT, "copies", CLUSTER[0].Set, pb.SetRequest())
    refused(grpc.StatusCode.FAILED_PRECONDITION, "copies", CLUSTER[0].Set, pb.SetRequest(copies=99))
    draining = pb.DrainRequest(node=3)
    ordered(CLUSTER[0].Drain, draining, "draining", lambda told: told.nodes[2].draining)
    staying = pb.DrainRequest(node=3, undo=True)
    ordered(CLUSTER[2].Drain, staying, "staying", lambda told: not told.nodes[2].draining)
    until("rest", lambda: status().moves.left == 0 and status().partitions.short == 0)
    # Two nodes that stay need one voter, three have three again: what follows may rely on a majority of three.
    until("three that vote", lambda: all(node.voter for node in status().nodes))
    refused(grpc.StatusCode.FAILED_PRECONDITION, "there is no node 9", CLUSTER[0].Drain, pb.DrainRequest(node=9))
    refused(grpc.StatusCode.FAILED_PRECONDITION, "alive", CLUSTER[0].Remove, pb.RemoveRequest(node=2))


def health():
    services = ["", "kvstore.KeyValueStore", "kvstore.NodeService", "annulet.v1.KV", "annulet.v1.Cluster"]
    for each in CHANNELS:
        stub = health_pb2_grpc.HealthStub(each)
        for service in services:
            request = health_pb2.HealthCheckRequest(service=service)
            # Primaries may still be passing from one node to another.
            until("a node that serves", lambda: stub.Check(request).status == health_pb2.HealthCheckResponse.SERVING)
        refused(grpc.StatusCode.NOT_FOUND, "", stub.Check, health_pb2.HealthCheckRequest(service="nope"))
        watched = stub.Watch(health_pb2.HealthCheckRequest())
        assert any(told.status == health_pb2.HealthCheckResponse.SERVING for told in watched)
        watched.cancel()
        watched = stub.Watch(health_pb2.HealthCheckRequest(service="nope"))
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watched.cancel()


def reflection():
    # The two versions of the service differ in their names alone.
    for version in ("v1", "v1alpha"):
        ask = CHANNELS[0].stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (told,) = ask(iter([request]))
        names = {service.name for service in told.list_services_response.service}
        wanted = {"kvstore.KeyValueStore", "kvstore.NodeService", "annulet.v1.KV", "annulet.v1.Cluster", "grpc.health.v1.Health"}
        assert wanted <= names, names
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="annulet.v1.KV")
        (told,) = ask(iter([request]))
        assert told.file_descriptor_response.file_descriptor_proto, told


resp(PORTS[0]).flushall()
values()
conditions()
expiry()
levels()
batches()
scans()
errors()
cluster()
health()
reflection()
print("done")
