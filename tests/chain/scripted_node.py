"""What the scripted nodes of this folder share: the part of the Transport contract that follows from `post`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from keeper.solana.http1 import Begun, Response


class Scripted(ABC):
    """A node that answers as told by `post`; its stream is the same answer, in one piece."""

    def begin(self, body: bytes) -> Begun | None:
        """It has no connections that could rest."""
        return None

    @abstractmethod
    async def post(self, body: bytes, begun: Begun | None = None) -> tuple[int, dict[str, str], bytes]: ...

    async def stream(self, body: bytes) -> AsyncGenerator[Response | bytes]:
        status, headers, said = await self.post(body)
        yield Response(status, headers)
        yield said

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to give back
        """There is nothing to give back."""
