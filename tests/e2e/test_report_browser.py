"""The report in a real browser: no console message, no request, every picture there, nothing wider than the screen.

Headless Chromium is driven over its DevTools protocol through a pair of pipes (--remote-debugging-pipe: one JSON object
per message, ended by a NUL), so no port is opened and no driver is needed.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from edgeft.report.html import render

RECORDS = Path(__file__).parents[1] / "unit" / "report" / "records"
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
DEADLINE_S = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Chromium reads messages from descriptor 3 and writes to 4: put the pipes there, then become Chromium.
LAUNCH = """
import os, sys
reads, writes, *command = sys.argv[1:]
os.dup2(int(reads), 100), os.dup2(int(writes), 101)
os.dup2(100, 3), os.dup2(101, 4)
os.execv(command[0], command)
"""


class Browser:
    """One page of a running Chromium; messages that it sends by itself are kept in `events`."""

    def __init__(self, send_to: int, read_from: int) -> None:
        self._send_to, self._read_from = send_to, read_from
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send_to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + DEADLINE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read_from], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser did not answer"
            part = os.read(self._read_from, 1 << 16)
            assert part, "the browser went away"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path, size: tuple[int, int], scheme: str) -> None:
        self.events.clear()
        width, height = size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page computes
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def requests(self) -> list[str]:
        sent = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[object]:
        told = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [event["params"] for event in self.events if event["method"] in told]

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not on PATH: apt-get update && apt-get install -y chromium")
    home = tmp_path_factory.mktemp("chromium")
    to_browser, from_browser = os.pipe(), os.pipe()
    ends = (str(to_browser[0]), str(from_browser[1]))
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *ends, chromium, *FLAGS, f"--user-data-dir={home}"],
        pass_fds=(to_browser[0], from_browser[1]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Browser(to_browser[1], from_browser[0])
    finally:
        os.close(to_browser[1])  # the browser ends when its pipe does
        os.close(from_browser[0])
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def record() -> dict[str, Any]:
    return json.loads((RECORDS / "complete.json").read_text(encoding="utf-8"))


def _page(record: dict[str, Any], folder: Path) -> Path:
    verified = folder / "verify"
    (verified / "flips").mkdir(parents=True)
    for index, flip in enumerate(record["verify"]["flips"]):
        picture = Image.new("RGB", (160, 160), (60 + 20 * index, 70, 80))
        ImageDraw.Draw(picture).line((10, 150, 150, 10 + 9 * index), fill=(230, 230, 230), width=3)
        picture.save(verified / flip["thumbnail"])
    page = folder / "report.html"
    page.write_text(render(record, verified), encoding="utf-8")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_report_opens_quietly(
    browser: Browser, record: dict[str, Any], tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    page = _page(record, tmp_path)
    browser.open(page, size, scheme)
    browser.screenshot(tmp_path / "report.png")
    pictures = browser.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
    assert len(pictures) == len(record["verify"]["flips"])
    assert all(complete and natural == 160 and shown > 0 for complete, natural, shown in pictures)
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    asked = [url for url in browser.requests() if not url.startswith("data:image/png;base64,")]
    assert asked == [page.as_uri()]
    assert browser.complaints() == []


def test_the_style_is_applied_and_follows_the_scheme(browser: Browser, record: dict[str, Any], tmp_path: Path) -> None:
    page = _page(record, tmp_path)
    grounds = []
    for scheme in ("light", "dark"):
        browser.open(page, SIZES["wide"], scheme)
        grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        verdict = browser.evaluate("parseFloat(getComputedStyle(document.querySelector('.verdict')).fontSize)")
        largest = browser.evaluate(
            "Math.max(...[...document.querySelectorAll('main *')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert verdict > 3 * largest
    assert grounds[0] != grounds[1]


def test_nothing_overflows_its_place(browser: Browser, record: dict[str, Any], tmp_path: Path) -> None:
    record["status"] = "inconclusive"
    page = _page(record, tmp_path)
    spilled = "[...document.querySelectorAll('.hero *, .gate *:not(svg *)')].filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline').map(e => e.className)"  # noqa: E501
    for size in SIZES.values():
        browser.open(page, size, "light")
        assert browser.evaluate(spilled) == []


def test_a_hostile_record_runs_nothing(browser: Browser, record: dict[str, Any], tmp_path: Path) -> None:
    attack = '"><img src="http://evil.example/x.png" onerror="window.ran = 1"><script>window.ran = 1</script>'
    page = _page(record, tmp_path)
    for flip in record["verify"]["flips"]:
        flip["path"] = attack
    record["recipe_text"] = record["gates"][0]["detail"] = record["recipe"]["bundle"]["name"] = attack
    page.write_text(render(record, tmp_path / "verify"), encoding="utf-8")
    browser.open(page, SIZES["wide"], "light")
    assert browser.evaluate("typeof window.ran") == "undefined"
    assert browser.evaluate("document.scripts.length") == 0
    assert [url for url in browser.requests() if "evil" in url] == []
    assert browser.complaints() == []


def test_even_markup_that_got_in_could_not_call_home(browser: Browser, record: dict[str, Any], tmp_path: Path) -> None:
    page = _page(record, tmp_path)
    injected = '<img src="http://127.0.0.1:9/x.png"><script>window.ran = 1</script></main>'
    page.write_text(page.read_text(encoding="utf-8").replace("</main>", injected), encoding="utf-8")
    browser.open(page, SIZES["wide"], "light")
    assert browser.evaluate("typeof window.ran") == "undefined"
    assert not [e for e in browser.events if e["method"] == "Network.responseReceived" and "x.png" in json.dumps(e)]
    assert any("Content Security Policy" in json.dumps(complaint) for complaint in browser.complaints())
