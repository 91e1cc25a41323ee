"""The first node of three, whose others are dead: what is not served is said to be so, and that nothing was done."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stubs import GRPC_PORTS, PORTS, PROTO, channel, make, refused, resp, until

make(PROTO, "annulet/v1/annulet.proto")
from annulet.v1 import annulet_pb2 as pb  # noqa: E402
from annulet.v1 import annulet_pb2_grpc as rpc  # noqa: E402

resp(PORTS[0]).config_set("request_timeout_ms", 300)
connection = channel(GRPC_PORTS[0])
kv, health = rpc.KVStub(connection), health_pb2_grpc.HealthStub(connection)


def is_down():
    told = health.Check(health_pb2.HealthCheckRequest(service="annulet.v1.KV"))
    return told.status == health_pb2.HealthCheckResponse.NOT_SERVING


until("a node without a lease", is_down)
for call, request in [
    (kv.Get, pb.GetRequest(key=b"a")),
    (kv.Put, pb.PutRequest(key=b"a", value=b"1")),
    (kv.Delete, pb.DeleteRequest(key=b"a")),
]:
    told = refused(grpc.StatusCode.UNAVAILABLE, " ", call, request)
    assert told["annulet-kind"] == "retryable" and told["annulet-code"] in ("TRYAGAIN", "CLUSTERDOWN"), told
print("done")
