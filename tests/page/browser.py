"""Headless Chromium over the WebDriver protocol (W3C), as much of it as a page's test needs."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support import BOUND_S

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window of a browser."""

    def __init__(self, http: httpx.Client, session: str) -> None:
        self._http = http
        self._path = f"/session/{session}"

    def open(self, url: str) -> None:
        self._ask("url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns."""
        return self._ask("execute/sync", {"script": script, "args": list(arguments)})

    def click(self, css: str) -> None:
        """As a person does: it fails when something else lies over it."""
        found = self._ask("element", {"using": "css selector", "value": css})
        self._ask(f"element/{found[_ELEMENT]}/click", {})

    def type(self, css: str, text: str) -> None:
        found = self._ask("element", {"using": "css selector", "value": css})
        self._ask(f"element/{found[_ELEMENT]}/value", {"text": text})

    def text(self, css: str) -> str:
        text: str = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)
        return text

    def show_as(self, width: int, height: int, *, dark: bool) -> None:
        """The screen's size and the system's theme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def before_each_page(self, script: str) -> None:
        """Run a script in every page before the page's own, as an extension of the browser does."""
        self._devtools("Page.addScriptToEvaluateOnNewDocument", {"source": script})

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """The whole page, also what has to be scrolled to; or what is on the screen."""
        taken = self._devtools("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        file.write_bytes(base64.b64decode(taken["data"]))

    def complaints(self) -> list[str]:
        """What the page wrote to its console as a warning or an error, since the last time."""
        return [entry["message"] for entry in self._ask("se/log", {"type": "browser"})]

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._ask("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _ask(self, command: str, body: dict[str, Any]) -> Any:
        answer = self._http.post(f"{self._path}/{command}", json=body).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(f"{command}: {answer['error']}: {answer['message'][:500]}")
        return answer


def missing() -> str | None:
    """Why there is no browser to test with; None when there is one."""
    lacking = [name for name in ("chromedriver", "chromium") if shutil.which(name) is None]
    return f"needs {' and '.join(lacking)} (Debian: chromium, chromium-driver)" if lacking else None


def _driver() -> tuple[subprocess.Popen[str], str]:
    """A driver and its port. It looks for a free port before it listens there, and ends when another was quicker."""
    for _ in range(3):
        driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert driver.stdout is not None
        for line in driver.stdout:
            if "started successfully" in line:
                return driver, line.split("port ")[1].strip(". \n")
        driver.wait()
        driver.stdout.close()
    raise AssertionError("chromedriver ends as soon as it is started")


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser of its own, which knows nothing of others and keeps nothing."""
    driver, port = _driver()
    try:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {
                "binary": shutil.which("chromium"),
                "args": [*arguments, f"--user-data-dir={profile}"],
            },
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=BOUND_S) as http:
            made = http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
            assert "sessionId" in made, made
            try:
                yield Browser(http, made["sessionId"])
            finally:
                http.delete(f"/session/{made['sessionId']}")
    finally:
        driver.terminate()
        driver.wait(10)
        assert driver.stdout is not None
        driver.stdout.close()
