"""A Yellowstone server that tells prepared accounts as fast as it can, in a process of its own.

Arguments: a file with the messages, each after its length (4 bytes); how many to tell; a blockhash of the chain. Prints
its port.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from keeper.yellowstone import geyser_pb2 as pb
from keeper.yellowstone import grpc


def main(file: str, count: str, blockhash: str) -> None:
    """Serve until killed."""
    messages = list(unpacked(Path(file).read_bytes()))

    def subscribe(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        next(requests)
        yield from itertools.islice(itertools.cycle(messages), int(count))
        next(requests, None)  # until the client goes

    def latest(request: bytes, context: Any) -> bytes:
        return bytes(pb.GetLatestBlockhashResponse(slot=1, blockhash=blockhash).SerializeToString())

    methods = {
        "Subscribe": grpc.stream_stream_rpc_method_handler(subscribe),
        "GetLatestBlockhash": grpc.unary_unary_rpc_method_handler(latest),
    }
    # The threaded server: it is faster than the keeper's side of this, which is what is measured.
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("geyser.Geyser", methods),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def packed(messages: list[bytes]) -> bytes:
    """What the file holds."""
    return b"".join(struct.pack("<I", len(message)) + message for message in messages)


def unpacked(data: bytes) -> Iterator[bytes]:
    """The file's messages."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


if __name__ == "__main__":
    main(*sys.argv[1:])
