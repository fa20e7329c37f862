"""A headless Chromium, driven over its pipe of DevTools messages (JSON, each ended by a zero)."""

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


class Moved(Exception):
    """The page was left while it was asked something."""


class Browser:
    """One page of a browser that ends with the block.

    Args:
        profile: an empty folder.
        width: of the window in CSS px; phones have 360.
        scheme: light or dark, what the system prefers.
    """

    def __init__(self, profile: Path, *, width: int = 1280, scheme: str = "light") -> None:
        theirs_in, self.out = os.pipe()
        self.back, theirs_out = os.pipe()
        assert CHROMIUM, f"none of {NAMES} is on the PATH"
        words = f"{CHROMIUM} --headless --no-sandbox --disable-gpu --remote-debugging-pipe"
        words += f" --no-first-run --user-data-dir={profile} about:blank"
        command = f"exec {words} 3<&{theirs_in} 4>&{theirs_out}"
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.rest, self.session = 0, b"", None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")
        self.show(width, scheme)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        self.session = None
        self.send("Browser.close")
        self.process.wait(20)
        os.close(self.out)
        os.close(self.back)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result; events that come before it are kept."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "navigated" in str(answer.get("error")):
                    raise Moved
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self.events.append(answer)

    def receive(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            block = os.read(self.back, 1 << 20)
            assert block, "the browser has ended"
            self.rest += block
        head, _, self.rest = self.rest.partition(b"\0")
        return json.loads(head)

    def show(self, width: int, scheme: str) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file and wait until it has."""
        self.events.clear()
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=path.absolute().as_uri() + fragment)
        here = json.dumps(path.absolute().as_uri())
        self.until(f"location.href.startsWith({here}) && document.readyState === 'complete'")

    def until(self, code: str) -> None:
        """Wait until an expression is true, ten seconds at most."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with suppress(Moved):
                if self.run(code):
                    return
            time.sleep(0.01)
        raise TimeoutError(code)

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        found = self.send(
            "Runtime.evaluate",
            expression=code, returnByValue=True, awaitPromise=True, userGesture=True,
        )  # fmt: skip
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as from a keyboard."""
        more = {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(found["data"]))
