"""A browser for tests: headless Chromium, driven through its DevTools protocol over a pair of pipes.

No package is needed for it: with ``--remote-debugging-pipe`` the browser reads JSON messages that end in a zero byte
from its file descriptor 3 and writes to 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    """The browser's program: $CHROMIUM, or what the path has."""
    return os.environ.get("CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of a fresh, headless browser that reaches this machine alone, with a microphone that beeps.

    Attributes:
        requests: the URLs that were asked for.
        messages: what the page wrote to its console, and its uncaught errors.
    """

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        program = find_chromium()
        assert program is not None
        commands_out, self._commands = os.pipe()
        self._events, events_in = os.pipe()

        def give_pipes() -> None:  # the browser expects them as 3 and 4; high copies first, lest one overwrite another
            reading, writing = os.dup(commands_out), os.dup(events_in)
            high = [os.dup2(fd, 100 + i) for i, fd in enumerate((reading, writing))]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [
                program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--mute-audio",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream", f"--user-data-dir={profile}",
                f"--window-size={width},{height}", "about:blank",
            ],
            close_fds=False, preexec_fn=give_pipes, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(commands_out)
        os.close(events_in)
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self._loaded = False
        self.requests: list[str] = []
        self.messages: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, timeout: float = 60.0, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + timeout
        while True:
            found = self._receive(until)
            if found.get("id") == self._last:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']['message']}")
                return found["result"]

    def _receive(self, until: float) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._events], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self._events, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError("the browser did not answer")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        method, given = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(a.get("value", a.get("description", ""))) for a in given["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(given["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(given["entry"]["text"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        return message

    def open(self, page: Path | str, timeout: float = 60.0) -> None:
        """Load a file, or a page of this machine's own servers, and wait until it has loaded."""
        self._loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri() if isinstance(page, Path) else page)
        until = time.monotonic() + timeout
        while not self._loaded:
            self._receive(until)

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"].get("exception", {}).get("description", "error"))
        return found["result"].get("value")

    def wait(self, expression: str, timeout: float = 30.0) -> Any:
        """The value of an expression as soon as it is true."""
        until = time.monotonic() + timeout
        while not (value := self.js(expression)):
            assert time.monotonic() < until, f"still not true: {expression}; console: {self.messages}"
            time.sleep(0.05)
        return value

    def press(self, key: str) -> None:
        """Press and release a key, as a person does."""
        named = {" ": ("Space", 32, " "), "Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, "")}
        named |= {f"Arrow{way}": (f"Arrow{way}", 37 + n, "") for n, way in enumerate(("Left", "Up", "Right", "Down"))}
        code, number, text = named.get(key, (key, ord(key[0].upper()), key))
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, selector: str) -> None:
        """Click the middle of the first element that matches."""
        found = f"document.querySelector({json.dumps(selector)})"
        x, y = self.js(
            f"(() => {{ const e = {found}; e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def give_file(self, selector: str, path: Path) -> None:
        """Choose a file in an input, as a person does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path.resolve())])

    def screenshot(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """A picture of the page at a size, light or dark."""
        self.emulate(width, height, dark)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def emulate(self, width: int, height: int, dark: bool = False) -> None:
        """Give the page a size and a colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def close(self) -> None:
        """End the browser."""
        finish: Callable[[], Any] = self._process.kill
        try:
            self._session = None
            self.call("Browser.close", timeout=10)
            self._process.wait(timeout=10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            finish()
            self._process.wait()
        os.close(self._commands)
        os.close(self._events)
