"""A page in headless Chromium, spoken to by its DevTools protocol over tornado's web sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = next(
    (path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None
)
_KEYS = {"Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}


async def _connect(address: str) -> WebSocketClientConnection:
    return await asyncio.wait_for(websocket_connect(address, max_message_size=1 << 28), 60)


class Page:
    """A page that is open; used as a context. ``requests`` are the addresses that it asked for."""

    def __init__(self, path: Path, width: int = 1400, height: int = 900) -> None:
        self.path, self.size = path, (width, height)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._number = 0

    def __enter__(self) -> Page:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        width, height = self.size
        self.process = subprocess.Popen(
            [
                str(CHROMIUM),
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"),
                "--force-color-profile=srgb",
                f"--user-data-dir={self.folder.name}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.loop = asyncio.new_event_loop()
        address = self._address()
        self.socket: WebSocketClientConnection = self.loop.run_until_complete(_connect(address))
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=self.path.absolute().as_uri())
        self.until("document.readyState === 'complete' && window.sphinxReport !== undefined")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.loop.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def _address(self) -> str:
        """Return the socket of the one page, once the browser listens."""
        port_file = Path(self.folder.name) / "DevToolsActivePort"
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if port_file.exists() and port_file.read_text().strip():
                port = port_file.read_text().split()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                    pages = [page for page in json.load(answer) if page["type"] == "page"]
                if pages:
                    return str(pages[0]["webSocketDebuggerUrl"])
            time.sleep(0.05)
        raise TimeoutError("Chromium does not listen.")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to a call of the protocol."""
        self._number += 1

        async def exchange() -> Any:
            await self.socket.write_message(
                json.dumps({"id": self._number, "method": method, "params": params})
            )
            while True:
                message = json.loads(str(await asyncio.wait_for(self.socket.read_message(), 60)))
                if message.get("id") == self._number:
                    return message
                self._note(message)

        answer = self.loop.run_until_complete(exchange())
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:400])

    def ask(self, expression: str) -> Any:
        """Return the value of an expression in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.ask(expression):
                return
            time.sleep(0.05)
        raise TimeoutError(expression)

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)
        self.frame()

    def key(self, key: str) -> None:
        """Press a key."""
        text = key if len(key) == 1 else ""
        code = _KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)
        self.frame()

    def frame(self) -> None:
        """Wait until what was asked for is drawn."""
        self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def screenshot(self, path: Path) -> None:
        """Write what is to be seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
