"""annulet.v1.KV.Watch, by stubs made of the product's own description; while a node dies, too."""

import threading
from collections import defaultdict

import grpc

from stubs import GRPC_PORTS, MADE, PORTS, PROTO, channel, make, refused, resp, until

make(PROTO, "annulet/v1/annulet.proto")
from annulet.v1 import annulet_pb2 as pb  # noqa: E402
from annulet.v1 import annulet_pb2_grpc as rpc  # noqa: E402

CHANNELS = [channel(port) for port in GRPC_PORTS]
KV = [rpc.KVStub(each) for each in CHANNELS]
CLUSTER = [rpc.ClusterStub(each) for each in CHANNELS]
SET, REMOVED = pb.CHANGE_KIND_SET, pb.CHANGE_KIND_REMOVED
EXPIRY, ALL_REMOVED = pb.CHANGE_KIND_EXPIRY, pb.CHANGE_KIND_ALL_REMOVED


def put(at, key, value, **options):
    return KV[at].Put(pb.PutRequest(key=key, value=value, **options)).version


class Watch:
    """A watch on a thread of its own, which goes on at the next node where one fails it."""

    def __init__(self, at, **request):
        self.at, self.request = at, request
        self.changes, self.positions, self.error = [], {}, None
        self.begun, self.over, self.times = False, False, 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        until("a watch that begins", lambda: self.begun or self.error)

    def run(self):
        while not self.over:
            self.times += 1
            positions = [pb.WatchPosition(slot=slot, epoch=e, lsn=n) for slot, (e, n) in self.positions.items()]
            self.stream = KV[self.at].Watch(pb.WatchRequest(positions=positions, **self.request))
            try:
                for told in self.stream:
                    self.changes.extend(told.changes)
                    for each in told.positions:
                        self.positions[each.slot] = (each.epoch, each.lsn)
                    self.begun = self.begun or not told.changes
            except grpc.RpcError as error:
                if self.over:
                    return
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    self.error = error
                    return
                self.at = (self.at + 1) % len(KV)

    def end(self):
        self.over = True
        self.stream.cancel()
        self.thread.join()

    def of(self, key):
        return [(each.kind, each.value) for each in self.changes if each.key == key]

    def versions(self, key):
        return [each.version for each in self.changes if each.key == key]


def one_key():
    for at in range(3):
        key = f"one:{at}".encode()
        watch = Watch(at, key=key)
        version = put((at + 1) % 3, key, b"1")
        put(at, key + b"x", b"not watched")
        resp(PORTS[at]).expire(key, 1000)
        resp(PORTS[(at + 2) % 3]).incr(key)
        resp(PORTS[0]).delete(key)
        resp(PORTS[0]).set(key, b"short", px=30)
        until("the end of its time", lambda: len(watch.of(key)) == 6)
        kinds = [(SET, b"1"), (EXPIRY, b""), (SET, b"2"), (REMOVED, b""), (SET, b"short"), (REMOVED, b"")]
        assert watch.of(key) == kinds, watch.changes
        assert watch.versions(key)[0] == version and watch.versions(key) == sorted(watch.versions(key))
        assert not watch.changes[0].HasField("expire_at_ms") and watch.changes[1].expire_at_ms > version >> 16
        assert len(watch.changes) == 6, "nothing of the other key"
        put(0, key, b"once more")
        resp(PORTS[0]).flushall()
        until("a flush", lambda: watch.changes[-1].kind == ALL_REMOVED)
        watch.end()


def many_keys():
    watches = [Watch(at, prefix=b"many:") for at in range(3)] + [Watch(0)]
    written = defaultdict(list)

    def write(at):
        for number in range(400):
            key = f"many:{at}:{number % 40}".encode()
            written[key].append(put(at, key, str(number).encode()))

    writers = [threading.Thread(target=write, args=(at,)) for at in range(3)]
    put(0, b"man", b"not watched by the first three")
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(written) == 120
    for watch in watches:
        until("all that was written", lambda: len([c for c in watch.changes if c.key.startswith(b"many:")]) >= 1200)
        for key, versions in written.items():
            assert watch.versions(key) == versions, (key, versions, watch.versions(key))
        assert watch.times == 1
    assert not watches[0].of(b"man") and watches[3].of(b"man")
    for watch in watches:
        watch.end()
    # Broken off, and gone on with at another node.
    watch, after = watches[0], [put(2, b"many:0:7", f"later {n}".encode()) for n in range(50)]
    again = pb.WatchRequest(prefix=b"many:")
    for slot, (epoch, lsn) in watch.positions.items():
        again.positions.add(slot=slot, epoch=epoch, lsn=lsn)
    seen, stream = [], KV[1].Watch(again)
    for told in stream:
        seen += [each.version for each in told.changes if each.key == b"many:0:7"]
        if after[-1] in seen:
            break
    stream.cancel()
    assert seen[-50:] == after, (seen, after)


def from_a_version():
    versions = [put(0, b"v", str(number).encode()) for number in range(5)]
    for at in range(3):
        watch = Watch(at, key=b"v", after_version=versions[1])
        assert watch.versions(b"v") == versions[2:], (watch.changes, versions)
        watch.end()
        watch = Watch(at, key=b"v", after_version=versions[4])
        assert watch.changes == []
        watch.end()
    # So much that what came before is not kept.
    for number in range(20):
        put(1, b"v", b"x" * 1_000_000)
    until(
        "no history",
        lambda: Watch(0, key=b"v", after_version=versions[1]).error is not None,
    )
    error = Watch(2, key=b"v", after_version=versions[1]).error
    assert error.code() == grpc.StatusCode.OUT_OF_RANGE and error.details().startswith("NOHISTORY"), error
    assert dict(error.trailing_metadata())["annulet-kind"] == "final"

    def read(*args, **named):
        return list(KV[0].Watch(*args, **named))

    lost = pb.WatchRequest(key=b"v")
    watch = Watch(0, key=b"v")
    ((slot, (epoch, lsn)),) = watch.positions.items()
    watch.end()
    lost.positions.add(slot=slot, epoch=epoch, lsn=lsn + 1_000_000)
    refused(grpc.StatusCode.OUT_OF_RANGE, "NOHISTORY", read, lost)
    wrong = pb.WatchRequest(key=b"v")
    wrong.positions.add(slot=slot + 1, epoch=epoch, lsn=lsn)
    refused(grpc.StatusCode.INVALID_ARGUMENT, "slot", read, wrong)
    refused(grpc.StatusCode.INVALID_ARGUMENT, "bytes", read, pb.WatchRequest(prefix=b"p" * 70_000))


def redis_commands():
    """The same by the command that it is made of."""
    at = resp(PORTS[0])
    slot = at.execute_command("CLUSTER", "KEYSLOT", "r")
    epoch, lsn, nothing = at.execute_command("CHANGES", slot, "NOW", "KEY", "r")
    assert nothing == []
    at.set("r", "1")
    behind = ["CHANGES", slot, "AFTER", epoch, lsn, "KEY", "r", "BLOCK", "1000"]
    for port in PORTS:
        next_epoch, next_lsn, changes = resp(port).execute_command(*behind)
        assert changes[0][:1] + changes[0][2:] == [b"set", b"r", -1, b"1"] and next_lsn > lsn, changes
    # Nothing for a while, and then something.
    behind = ["CHANGES", slot, "AFTER", next_epoch, next_lsn, "KEY", "r", "BLOCK", "1000"]
    assert at.execute_command(*behind[:-1], "1")[2] == []
    timer = threading.Timer(0.1, lambda: resp(PORTS[1]).delete("r"))
    timer.start()
    assert resp(PORTS[2]).execute_command(*behind)[2][0][0] == b"del"


def through_a_death():
    """The last: the other end kills node 3 once it finds the file."""
    watches = [Watch(at, prefix=b"death:") for at in range(3)]
    written, over = defaultdict(list), threading.Event()

    def write(at):
        number = 0
        while not over.is_set():
            number += 1
            key = f"death:{at}:{number % 50}".encode()
            try:
                written[key].append(put(at, key, b"x"))
            except grpc.RpcError as error:
                assert error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE), error

    writers = [threading.Thread(target=write, args=(at,)) for at in range(2)]
    for each in writers:
        each.start()
    until("much", lambda: sum(map(len, written.values())) > 300)
    (MADE / "ready").touch()

    def settled():
        told = CLUSTER[0].Status(pb.StatusRequest())
        return told.nodes[2].state == pb.NODE_STATE_FAILED and told.partitions.unavailable == 0

    until("a death", settled)
    before = sum(map(len, written.values()))
    until("much more", lambda: sum(map(len, written.values())) > before + 300)
    over.set()
    for each in writers:
        each.join()
    last = [put(0, f"death:{at}:{n}".encode(), b"last") for at in range(2) for n in range(50)]
    for watch in watches:
        until("all that was acknowledged", lambda: set(last) <= {each.version for each in watch.changes} or watch.error)
        assert watch.error is None, watch.error
        for key, versions in written.items():
            shown = watch.versions(key)
            assert set(versions) <= set(shown), (key, set(versions) - set(shown), watch.times)
            # What is shown again after a watch went on elsewhere is shown in its order.
            assert watch.times > 1 or shown == sorted(set(shown)), key
    assert watches[2].times > 1
    for watch in watches:
        watch.end()


one_key()
many_keys()
from_a_version()
redis_commands()
through_a_death()
print("done")
