"""What the scripts here share: stubs made with grpcio-tools, connections, and the checking of errors.

A script is run as: python3 SCRIPT DIRECTORY PROTO PORT...
DIRECTORY is an empty one for what is made, PROTO the product's directory of .proto files, and each node has its port for Redis
clients, with the one for gRPC 300 above.
"""

import pathlib
import sys
import time

import grpc
import redis
from grpc_tools import protoc

MADE = pathlib.Path(sys.argv[1])
PROTO = pathlib.Path(sys.argv[2])
PORTS = [int(port) for port in sys.argv[3:]]
GRPC_PORTS = [port + 300 for port in PORTS]
# Only a test that fails waits so long.
PATIENCE_S = 60


def make(root, *files):
    """Stubs of files below a root, to import from."""
    words = ["protoc", f"-I{root}", f"--python_out={MADE}", f"--grpc_python_out={MADE}", *files]
    assert protoc.main(words) == 0, words
    if str(MADE) not in sys.path:
        sys.path.insert(0, str(MADE))


def channel(port):
    most = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=most)


def resp(port):
    return redis.Redis(port=port, socket_timeout=PATIENCE_S)


def refused(code, text, call, *args, **named):
    """Checks that a call fails so, and returns what it says."""
    try:
        call(*args, timeout=PATIENCE_S, **named)
    except grpc.RpcError as error:
        assert error.code() == code and text in error.details(), (error.code(), error.details())
        return dict(error.trailing_metadata())
    raise AssertionError(f"not refused: {code}")


def until(what, is_so):
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
