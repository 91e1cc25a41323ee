"""Package kvstore, by a client whose description is written here from the tables that fix it, not from the product's files."""

from collections import Counter

import grpc

from stubs import GRPC_PORTS, MADE, PORTS, channel, make, refused, resp, until

# Message: fields, as name, number and type.
MESSAGES = {
    "PutRequest": [("key", 1, "string"), ("value", 2, "string"), ("timestamp", 3, "int64")],
    "PutResponse": [("success", 1, "bool"), ("message", 2, "string"), ("node_id", 3, "string"), ("replicas_count", 4, "int32")],
    "GetRequest": [("key", 1, "string"), ("read_from_replica", 2, "bool")],
    "GetResponse": [
        ("found", 1, "bool"),
        ("value", 2, "string"),
        ("message", 3, "string"),
        ("node_id", 4, "string"),
        ("timestamp", 5, "int64"),
    ],
    "DeleteRequest": [("key", 1, "string")],
    "DeleteResponse": [("success", 1, "bool"), ("message", 2, "string"), ("replicas_count", 3, "int32")],
    "ListKeysRequest": [],
    "ListKeysResponse": [("keys", 1, "repeated string"), ("count", 2, "int32"), ("node_id", 3, "string")],
    "MembershipRequest": [("requesting_node_id", 1, "string")],
    "MembershipResponse": [("nodes", 1, "repeated NodeInfo"), ("cluster_size", 2, "int32")],
    "NodeInfo": [
        ("node_id", 1, "string"),
        ("host", 2, "string"),
        ("port", 3, "int32"),
        ("status", 4, "NodeStatus"),
        ("last_heartbeat", 5, "int64"),
    ],
    "SnapshotRequest": [("requesting_node_id", 1, "string")],
    "SnapshotResponse": [
        ("data", 1, "repeated KeyValuePair"),
        ("total_keys", 2, "int32"),
        ("provider_node_id", 3, "string"),
        ("snapshot_timestamp", 4, "int64"),
    ],
    "KeyValuePair": [("key", 1, "string"), ("value", 2, "string"), ("timestamp", 3, "int64")],
    # The tables say nothing of the messages of methods that are refused: a client of the family sends some fields.
    "Anything": [("some_id", 1, "string"), ("some_number", 2, "int64")],
}
STATUSES = ["ACTIVE", "SUSPECTED", "FAILED", "JOINING", "LEAVING"]
FOR_NODES = ["Heartbeat", "ForwardPut", "ForwardGet", "ForwardDelete", "Replicate", "JoinCluster"]
SERVICES = {
    "KeyValueStore": [(name, f"{name}Request", f"{name}Response") for name in ("Put", "Get", "Delete", "ListKeys")],
    "NodeService": [
        ("GetMembership", "MembershipRequest", "MembershipResponse"),
        ("GetSnapshot", "SnapshotRequest", "SnapshotResponse"),
        *((name, "Anything", "Anything") for name in FOR_NODES),
    ],
}


def description():
    lines = ['syntax = "proto3";', "package kvstore;"]
    lines.append("enum NodeStatus { " + " ".join(f"{name} = {at};" for at, name in enumerate(STATUSES)) + " }")
    for name, fields in MESSAGES.items():
        lines.append(f"message {name} {{ " + " ".join(f"{kind} {field} = {at};" for field, at, kind in fields) + " }")
    for name, methods in SERVICES.items():
        calls = " ".join(f"rpc {method}({takes}) returns ({gives});" for method, takes, gives in methods)
        lines.append(f"service {name} {{ {calls} }}")
    return "\n".join(lines) + "\n"


(MADE / "family.proto").write_text(description())
make(MADE, "family.proto")
import family_pb2 as pb  # noqa: E402
import family_pb2_grpc as rpc  # noqa: E402

CHANNELS = [channel(port) for port in GRPC_PORTS]
KEYS = [rpc.KeyValueStoreStub(each) for each in CHANNELS]
NODES = [rpc.NodeServiceStub(each) for each in CHANNELS]
NAMES = [resp(port).execute_command("CLUSTER MYID").decode() for port in PORTS]


def written_at_ms(port, key):
    return resp(port).execute_command("GETV", key)[0] >> 16


def reading_and_writing():
    """Every node answers for every key, wherever its primary is, and says who it is."""
    for at, put in enumerate(KEYS):
        for number in range(20):
            key, value = f"key{number}", f"value {number} by {at} \u00fc"
            # Clients' clocks order nothing: a write with an older timestamp is the newer one all the same.
            told = put.Put(pb.PutRequest(key=key, value=value, timestamp=10**15 - at))
            assert told.success and told.node_id == NAMES[at] and told.message == "stored", told
            assert told.replicas_count == 1, told
            for other, get in enumerate(KEYS):
                got = get.Get(pb.GetRequest(key=key))
                assert got.found and got.value == value and got.node_id == NAMES[other], got
                assert got.timestamp == written_at_ms(PORTS[at], key), got
            assert resp(PORTS[at]).get(key).decode() == value
    resp(PORTS[0]).set("from redis", "1", ex=1000)
    got = KEYS[2].Get(pb.GetRequest(key="from redis"))
    assert got.found and got.value == "1"
    KEYS[1].Put(pb.PutRequest(key="from redis", value="2"))
    assert resp(PORTS[0]).ttl("from redis") == -1, "a put has no expiry"
    none = KEYS[0].Get(pb.GetRequest(key="none"))
    assert not none.found and none.value == "" and none.message == "Key not found" and none.node_id == NAMES[0], none
    for get in KEYS:
        until("a stale read that shows it", lambda: get.Get(pb.GetRequest(key="key7", read_from_replica=True)).found)


def removing():
    KEYS[0].Put(pb.PutRequest(key="gone", value="1"))
    told = KEYS[1].Delete(pb.DeleteRequest(key="gone"))
    assert told.success and told.replicas_count == 1 and told.message == "removed", told
    assert not KEYS[2].Get(pb.GetRequest(key="gone")).found
    told = KEYS[2].Delete(pb.DeleteRequest(key="gone"))
    assert not told.success and told.replicas_count == 0 and told.message == "Key not found", told


def listing():
    """A node lists what it holds, as primary or backup: each key is at as many nodes as there are copies."""
    expected = {key.decode(): 2 for key in resp(PORTS[0]).keys()}
    primaries = sum(resp(port + 100).dbsize() for port in PORTS)
    assert primaries == len(expected) >= 20

    def listed():
        counts = Counter()
        for at, keys in enumerate(KEYS):
            told = keys.ListKeys(pb.ListKeysRequest())
            assert told.count == len(told.keys) and told.node_id == NAMES[at], told
            assert 0 < told.count < len(expected), told
            counts.update(told.keys)
        return counts == expected

    # Backups apply what they hold a moment after it was acknowledged.
    until("each key at its primary and at its backup", listed)


def snapshots():
    counts = Counter()
    for at, node in enumerate(NODES):
        told = node.GetSnapshot(pb.SnapshotRequest(requesting_node_id="any"))
        assert told.total_keys == len(told.data) and told.provider_node_id == NAMES[at]
        assert sorted(pair.key for pair in told.data) == sorted(KEYS[at].ListKeys(pb.ListKeysRequest()).keys)
        assert told.snapshot_timestamp > 0
        for pair in told.data:
            assert resp(PORTS[0]).get(pair.key).decode() == pair.value
            assert pair.timestamp == written_at_ms(PORTS[0], pair.key)
        counts.update(pair.key for pair in told.data)
    assert set(counts.values()) == {2}, counts


def bounds():
    for port in PORTS:
        resp(port).config_set("max_request_bytes", 65536)
    put, large = KEYS[0].Put, "x" * 40_000
    refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "max_request_bytes", put, pb.PutRequest(key="a", value="x" * 70_000))
    put(pb.PutRequest(key="{large}1", value=large))
    put(pb.PutRequest(key="{large}2", value=large))

    def holders():
        large_keys = {"{large}1", "{large}2"}
        return [at for at in range(3) if large_keys <= set(KEYS[at].ListKeys(pb.ListKeysRequest()).keys)]

    # What a backup shows may be behind.
    until("two copies", lambda: len(holders()) == 2)
    call = NODES[holders()[0]].GetSnapshot
    refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "annulet.v1.KV/Scan", call, pb.SnapshotRequest())
    for port in PORTS:
        resp(port).config_set("max_request_bytes", 16 * 1024 * 1024)
    call(pb.SnapshotRequest())
    put(pb.PutRequest(key="a", value="x" * 10_000_000))
    assert len(KEYS[1].Get(pb.GetRequest(key="a")).value) == 10_000_000
    for key in ("a", "{large}1", "{large}2"):
        KEYS[2].Delete(pb.DeleteRequest(key=key))


def members():
    for at, node in enumerate(NODES):
        told = node.GetMembership(pb.MembershipRequest(requesting_node_id="any"))
        assert told.cluster_size == 3 and [each.node_id for each in told.nodes] == NAMES, told
        assert all(each.status == pb.ACTIVE and each.host == "127.0.0.1" for each in told.nodes), told
        assert all(each.last_heartbeat > 0 for each in told.nodes), told
        assert [node.port for node in told.nodes] == GRPC_PORTS, told


def refusals():
    for name in FOR_NODES:
        call = getattr(NODES[0], name)
        refused(grpc.StatusCode.PERMISSION_DENIED, f"{name} is for nodes", call, pb.Anything(some_id="x", some_number=3))
    long = pb.PutRequest(key="k" * 70_000, value="1")
    told = refused(grpc.StatusCode.INVALID_ARGUMENT, "ERR key is longer", KEYS[0].Put, long)
    assert told["annulet-code"] == "ERR" and told["annulet-kind"] == "final", told
    # What other doors can write and the strings of this one cannot carry.
    resp(PORTS[0]).set("bytes", b"\xff")
    refused(grpc.StatusCode.FAILED_PRECONDITION, "annulet.v1.KV", KEYS[1].Get, pb.GetRequest(key="bytes"))
    resp(PORTS[0]).delete("bytes")
    for port in PORTS:
        resp(port).config_set("maxmemory", 1)
    # The bound is looked at several times a second.
    until("no room", lambda: not can_put())
    told = refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OOM ", KEYS[0].Put, pb.PutRequest(key="a", value="1"))
    assert told["annulet-code"] == "OOM", told
    for port in PORTS:
        resp(port).config_set("maxmemory", 0)
    until("room", can_put)


def can_put():
    try:
        return KEYS[0].Put(pb.PutRequest(key="a", value="1")).success
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
        return False


def described_alike():
    """What the product serves is what is written here, field by field."""
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    served = ProtoReflectionDescriptorDatabase(CHANNELS[0]).FindFileContainingSymbol("kvstore.KeyValueStore")
    fields = {message.name: message.field for message in served.message_type}
    for name, expected in MESSAGES.items():
        if name == "Anything":
            continue
        told = [(each.name, each.number, kind(each, Field)) for each in fields[name]]
        assert told == expected, (name, told)
    assert [(value.name, value.number) for value in served.enum_type[0].value] == [(n, at) for at, n in enumerate(STATUSES)]
    methods = {service.name: [method.name for method in service.method] for service in served.service}
    assert methods == {name: [method[0] for method in of] for name, of in SERVICES.items()}, methods


def kind(field, types):
    plain = {types.TYPE_STRING: "string", types.TYPE_INT64: "int64", types.TYPE_INT32: "int32", types.TYPE_BOOL: "bool"}
    name = plain.get(field.type) or field.type_name.rsplit(".", 1)[1]
    return f"repeated {name}" if field.label == types.LABEL_REPEATED else name


resp(PORTS[0]).flushall()
reading_and_writing()
removing()
listing()
snapshots()
bounds()
members()
refusals()
described_alike()
print("done")
