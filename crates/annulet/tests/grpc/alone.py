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

for number in range(20):
    told = refused(grpc.StatusCode.UNAVAILABLE, " ", kv.Get, pb.GetRequest(key=f"key{number}".encode()))
    assert told["annulet-kind"] == "retryable" and told["annulet-code"] in ("TRYAGAIN", "CLUSTERDOWN"), told
# A write may have been passed on, and then nobody knows whether it was done; the error says which it is.
kinds = {grpc.StatusCode.UNAVAILABLE: "retryable", grpc.StatusCode.UNKNOWN: "unknown-outcome"}
for number in range(20):
    try:
        kv.Put(pb.PutRequest(key=f"key{number}".encode(), value=b"1"))
    except grpc.RpcError as error:
        assert dict(error.trailing_metadata())["annulet-kind"] == kinds[error.code()], error
    else:
        raise AssertionError("acknowledged without a majority of the voters")
print("done")
