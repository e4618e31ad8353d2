"""A real browser at the pages of a real keeper on an embedded chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from tests.page.browser import Browser
from tests.support import KeeperProcess, World


@dataclass
class Scene:
    """What a page's test has: the chain, the keeper, and a window."""

    world: World
    keeper: KeeperProcess
    window: Browser

    async def sees(self, script: str, *arguments: Any, within_s: float = 15.0) -> Any:
        """Wait until the script, run in the page, returns something true; that."""
        with anyio.move_on_after(within_s):
            while True:
                if found := await self.run(script, *arguments):
                    return found
                await anyio.sleep(0.1)
        raise TimeoutError(f"the page never showed: {script}\n{await self.text('body')}")

    async def reads(self, css: str, words: str, within_s: float = 15.0) -> str:
        """Wait until an element's text has these words; the text."""
        await self.sees("document.querySelector(arguments[0])?.innerText.includes(arguments[1])", css, words)
        return await self.text(css)

    async def run(self, script: str, *arguments: Any) -> Any:
        """The value of an expression in the page."""
        return await self.do(self.window.run, f"return {script}", *arguments)

    async def text(self, css: str) -> str:
        """What can be read there."""
        return str(await self.do(self.window.text, css))

    async def click(self, css: str) -> None:
        """As a person does."""
        await self.do(self.window.click, css)

    async def type(self, css: str, text: str) -> None:
        """As a person does."""
        await self.do(self.window.type, css, text)

    async def do(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """In a thread, so that the chain in this process goes on."""
        return await anyio.to_thread.run_sync(act, *arguments)
