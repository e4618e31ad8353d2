"""Server-sent events: the wire format, and an answer that goes on for as long as its reader keeps up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from keeper.http.stream.feed import Feed, Reader

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE_S: Final = 15.0
_RETRY: Final = b"retry: 2000\n\n"
_LAST_WORD_S: Final = 5.0


def event(name: str, data: msgspec.Struct, event_id: int) -> bytes:
    """One event. JSON has no bare line breaks, so its data is one line."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event_id, name.encode(), msgspec.json.encode(data))


def keep_alive(event_id: int) -> bytes:
    """A comment, and the id up to which nothing that fits is missing: a resume then has less to look through."""
    return b": keep-alive\nid: %d\n\n" % event_id


class EventStream(Response):
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
        super().__init__(headers={"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # Where it ends is not known beforehand.
        del self.headers["content-length"]
        self._feed = feed
        self._reader = reader
        self._opening = _RETRY + opening
        self._release = release
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, until the end."""
        gone = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with anyio.create_task_group() as tg:
                # A writer that waits for a full socket does not see by itself that its reader was cut off.
                self._reader.on_cut = tg.cancel_scope.cancel
                tg.start_soon(self._write, send)
                while not gone and not self._reader.cut:
                    gone = (await receive())["type"] == "http.disconnect"
                tg.cancel_scope.cancel()
        finally:
            self._release()
        if not gone:
            # Who reads on in time sees a proper end; for who does not, the server closes the connection.
            with anyio.move_on_after(_LAST_WORD_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send) -> None:
        reader, feed = self._reader, self._feed
        piece, self._opening = self._opening, b""
        while not reader.cut:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = b""
            while not piece and not reader.cut:
                with anyio.move_on_after(self._keep_alive_s):
                    piece = await reader.news()
                if not piece and reader.idle:
                    # Everything up to the feed's position that fits was taken, and sent above.
                    piece = keep_alive(max(feed.position, reader.after))
