"""uvicorn's httptools protocol with a bound on what a connection may send beside bodies.

llhttp reads a request in a fifth of h11's time, and collects any number of header lines while it does. Here what came
since a message began and is no body is counted, also header lines after a chunked body and the chunks' own lengths.
"""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from keeper.http.edge.problems import Problem

MAX_HEAD_BYTES: Final = 16 * 1024
"""A request's path, query and headers together."""
_MOST_FRAMING_BYTES: Final = 128 * 1024
"""Chunk lengths and trailers of one body."""


class BoundedHeads(HttpToolsProtocol):
    """One connection. A head that comes piece by piece ends with 431 and the connection's end once it is too long.

    A head that comes in one read is bounded by the read's size, and `EveryRequest` answers it.
    """

    _beside_bodies = 0
    _head_ended = False

    def data_received(self, data: bytes) -> None:
        """Feed the parser; give the connection up when it collects too much."""
        self._beside_bodies += len(data)
        super().data_received(data)
        most = _MOST_FRAMING_BYTES if self._head_ended else MAX_HEAD_BYTES
        if self._beside_bodies > most and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """The bytes of this read count for the message from the next one on: where it began in it is not known."""
        self._beside_bodies, self._head_ended = 0, False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The rest is the body's."""
        self._beside_bodies, self._head_ended = 0, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bodies have their own bound, where they are read."""
        self._beside_bodies -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """An idle connection owes nothing."""
        self._beside_bodies = 0
        super().on_message_complete()

    def _refuse(self) -> None:
        # uvicorn's annotation hides that there is no cycle before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            # An answer of its own would come between those of a running request.
            refusal = Problem("headers_too_large", f"A request's head may have {MAX_HEAD_BYTES} bytes.").response()
            head = b"".join(b"%s: %s\r\n" % header for header in refusal.raw_headers)
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n%sconnection: close\r\n\r\n%s" % (head, refusal.body)
            )
        self.transport.close()
