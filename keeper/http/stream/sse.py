"""Server-sent events: the wire format, and an answer that goes on for as long as its reader keeps up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio
import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from keeper.http.stream.feed import Feed, Reader

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
KEEP_ALIVE_S: Final = 15.0
_RETRY: Final = b"retry: 2000\n\n"
_LAST_WORD_S: Final = 5.0


def event(name: str, data: msgspec.Struct, event_id: int) -> bytes:
    """One event. JSON has no bare line breaks, so its data is one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event_id, name.encode(), msgspec.json.encode(data))


def keep_alive(event_id: int) -> bytes:
    """A comment, and the id up to which nothing that fits is missing: a resume then has less to look through."""
    return b": keep-alive\nid: %d\n\n" % event_id


class EventStream(StreamingResponse):
    """An open stream. `opening` is what its reader gets first; then comes what `reader` hears.

    It ends when the client goes, and when the reader is cut off, because it did not keep up or the API stops: the
    client then connects again with the last id that it saw. `release` is called at the end.
    """

    def __init__(
        self,
        feed: Feed,
        reader: Reader,
        opening: bytes,
        release: Callable[[], None],
        *,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        super().__init__(
            self._pieces(feed, reader, _RETRY + opening, keep_alive_s),
            headers=HEADERS,
        )
        self._reader = reader
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, until the end."""
        try:
            with anyio.CancelScope() as sending:

                def end_soon() -> None:
                    # Who reads on in time sees a proper end; for who does not, the server closes the connection.
                    sending.deadline = anyio.current_time() + _LAST_WORD_S

                self._reader.on_cut = end_soon
                await super().__call__(scope, receive, send)
        finally:
            self._release()

    @staticmethod
    async def _pieces(feed: Feed, reader: Reader, opening: bytes, keep_alive_s: float) -> AsyncIterator[bytes]:
        yield opening
        while not reader.cut:
            piece = b""
            with anyio.move_on_after(keep_alive_s):
                piece = await reader.news()
            if piece:
                yield piece
            elif reader.idle and not reader.cut:
                # Everything up to the feed's position that fits was taken, and sent above.
                yield keep_alive(max(feed.position, reader.after))
