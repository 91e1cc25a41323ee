"""Nodes with a password: nothing is told and nothing done before it is said. PASSWORD is in the environment."""

import os

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from stubs import GRPC_PORTS, PROTO, channel, make, refused

make(PROTO, "annulet/v1/annulet.proto", "kvstore.proto")
import kvstore_pb2 as family  # noqa: E402
import kvstore_pb2_grpc as family_rpc  # noqa: E402
from annulet.v1 import annulet_pb2 as pb  # noqa: E402
from annulet.v1 import annulet_pb2_grpc as rpc  # noqa: E402

PASSWORD = os.environ["PASSWORD"]


def services(connection):
    kv, cluster = rpc.KVStub(connection), rpc.ClusterStub(connection)
    keys, nodes = family_rpc.KeyValueStoreStub(connection), family_rpc.NodeServiceStub(connection)
    yield kv.Put, pb.PutRequest(key=b"a", value=b"1")
    yield kv.Get, pb.GetRequest(key=b"a")
    yield kv.Batch, pb.BatchRequest()
    yield lambda *args, **named: list(kv.Scan(*args, **named)), pb.ScanRequest()
    yield cluster.Status, pb.StatusRequest()
    yield keys.Put, family.PutRequest(key="a", value="1")
    yield keys.ListKeys, family.ListKeysRequest()
    yield nodes.GetMembership, family.MembershipRequest()
    yield nodes.GetSnapshot, family.SnapshotRequest()
    yield kv.Delete, pb.DeleteRequest(key=b"a")


for port in GRPC_PORTS:
    connection = channel(port)
    for call, request in services(connection):
        for shown in [(), (("authorization", "Bearer wrong"),), (("authorization", PASSWORD),), (("password", PASSWORD),)]:
            told = refused(grpc.StatusCode.UNAUTHENTICATED, "authorization: Bearer", call, request, metadata=shown)
            assert told["annulet-code"] == "NOAUTH", told
        call(request, metadata=(("authorization", f"Bearer {PASSWORD}"),))
    reflection = reflection_pb2_grpc.ServerReflectionStub(connection).ServerReflectionInfo
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    ask = lambda **named: list(reflection(iter([question]), **named))  # noqa: E731
    refused(grpc.StatusCode.UNAUTHENTICATED, "", lambda **named: ask(**named))
    assert ask(metadata=(("authorization", f"Bearer {PASSWORD}"),))
    # Probes need none.
    told = health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest())
    assert told.status in (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)
print("done")
