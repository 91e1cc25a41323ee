"""A node that stops tells its watches to go on elsewhere, and ends idle connections. The other end stops it once it finds the file."""

import http.client

import grpc

from stubs import GRPC_PORTS, MADE, PROTO, channel, make

make(PROTO, "annulet/v1/annulet.proto")
from annulet.v1 import annulet_pb2 as pb  # noqa: E402
from annulet.v1 import annulet_pb2_grpc as rpc  # noqa: E402

idle = http.client.HTTPConnection("127.0.0.1", GRPC_PORTS[0], timeout=60)
idle.request("GET", "/v1/keys")
assert idle.getresponse().read() == b'{"keys":[],"cursor":null}'
kv = rpc.KVStub(channel(GRPC_PORTS[0]))
watch = kv.Watch(pb.WatchRequest(prefix=b""))
assert len(next(watch).positions) == 32
(MADE / "ready").touch()
try:
    for told in watch:
        pass
    raise AssertionError("a watch that just ends")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNAVAILABLE and "watch on at another node" in error.details(), error
    assert dict(error.trailing_metadata())["annulet-kind"] == "retryable"
assert idle.sock.recv(1) == b"", "its end, in order"
print("done")
