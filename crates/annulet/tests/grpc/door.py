"""annulet.v1.KV for the script that runs through every door: a request a line as JSON, an answer a line as JSON; bytes in hex.

["get", node, key], ["ttl", node, key], ["delete", node, key], ["put", node, key, value, seconds or null]
"""

import json
import sys

import grpc

from stubs import GRPC_PORTS, PROTO, channel, make

make(PROTO, "annulet/v1/annulet.proto")
from annulet.v1 import annulet_pb2 as pb  # noqa: E402
from annulet.v1 import annulet_pb2_grpc as rpc  # noqa: E402

KV = [rpc.KVStub(channel(port)) for port in GRPC_PORTS]


def answered(what, node, key, value="", seconds=None):
    kv, key = KV[node], bytes.fromhex(key)
    if what == "put":
        ends = {} if seconds is None else {"ttl_ms": int(seconds) * 1000}
        kv.Put(pb.PutRequest(key=key, value=bytes.fromhex(value), **ends))
        return "OK"
    if what == "delete":
        return str(int(kv.Delete(pb.DeleteRequest(key=key)).deleted))
    told = kv.Get(pb.GetRequest(key=key))
    if not told.HasField("entry"):
        return None
    if what == "get":
        return {"value": told.entry.value.hex()}
    return str(-(-told.entry.ttl_ms // 1000)) if told.entry.HasField("ttl_ms") else "-1"


for line in sys.stdin:
    try:
        said = answered(*json.loads(line))
    except grpc.RpcError as error:
        said = "!" + dict(error.trailing_metadata()).get("annulet-code", "")
    print(json.dumps(said), flush=True)
