"""A real browser for the tests of the built pages.

Chromium is driven through chromedriver's HTTP interface. Every name but "localhost" resolves to
nothing, and every request the pages make is recorded.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="chromium or chromedriver is not installed: the pages were not looked at in a browser",
)

LOADED = """
const formulas = document.querySelector('script[src*="mathjax"]');
return document.readyState === 'complete' && (!formulas || !!window.MathJax?.startup?.promise);
"""


class Browser:
    """A headless Chromium behind the few WebDriver calls these tests need."""

    def __init__(self, profile: Path, html_dir: Path) -> None:
        self.html_dir = html_dir
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.driver = subprocess.Popen(
            [str(CHROMEDRIVER), f"--port={self.port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.session = ""
        try:
            self._start(profile)
        except BaseException:
            self.close()
            raise

    def _start(self, profile: Path) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.call("GET", "/status")
                break
            except urllib.error.URLError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        options = {
            "binary": CHROMIUM,
            "args": [
                *FLAGS,
                f"--user-data-dir={profile}",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
            ],
        }
        logs = {"performance": "ALL", "browser": "ALL"}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": logs}
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{answer['sessionId']}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def js(self, code: str, *arguments: Any) -> Any:
        body = {"script": code, "args": list(arguments)}
        return self.call("POST", f"{self.session}/execute/sync", body)

    def log(self, kind: str) -> list[dict[str, Any]]:
        return self.call("POST", f"{self.session}/se/log", {"type": kind})

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"]["documentURL"].startswith("file:")  # not the browser's own page
        ]

    def size(self, width: int) -> None:
        metrics = {
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": width < 500,
        }
        body = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self.call("POST", f"{self.session}/goog/cdp/execute", body)

    def open(self, page: str | Path, *, theme: str = "light", width: int = 1400) -> None:
        self.size(width)
        address = {"url": (self.html_dir / page).as_uri()}
        self.call("POST", f"{self.session}/url", address)
        self.js("for (const k of ['mode', 'theme']) localStorage.setItem(k, arguments[0])", theme)
        self.call("POST", f"{self.session}/url", address)
        until(lambda: self.js(LOADED))
        self.js("return window.MathJax?.startup?.promise")
        self.js("return document.fonts.ready.then(() => true)")
        assert self.js("return document.documentElement.dataset.theme") == theme

    def press(self, selector: str, keys: str) -> None:
        element = self.call(
            "POST", f"{self.session}/element", {"using": "css selector", "value": selector}
        )
        (identifier,) = element.values()
        self.call("POST", f"{self.session}/element/{identifier}/value", {"text": keys})

    def close(self) -> None:
        try:
            if self.session:
                self.call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=20)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the page did not get there in time"
        time.sleep(0.05)
    return value
