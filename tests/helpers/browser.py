"""A headless Chromium, in which the tests try the HTML pages."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

Result = TypeVar("Result")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

CONTRASTS = """
    const linear = v => v <= 10.31475 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4;
    const luminance = colour => {
      const [r, g, b] = colour.match(/[\\d.]+/g).map(linear);
      return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = e => {
      const colour = getComputedStyle(e).backgroundColor;
      return colour.endsWith(", 0)") ? behind(e.parentNode) : colour;
    };
    const hasText = e => [...e.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    return [...document.querySelectorAll("body *")]
      .filter(e => e.checkVisibility() && !e.closest("script, :disabled") && hasText(e))
      .map(e => {
        const [a, b] = [getComputedStyle(e).color, behind(e)].map(luminance).sort((x, y) => y - x);
        return [(a + .05) / (b + .05), [e.tagName, ...e.classList].join(".")];
      });"""


class Browser:
    """A headless Chromium that must see no error and send no request."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for switch in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            "disable-dev-shm-usage",
            "force-color-profile=srgb",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Service(DRIVER))
        self.driver.set_page_load_timeout(200)
        self.resize(1200, 900)
        self.emulate("light")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def emulate(self, theme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, file: Path, address: str = "") -> None:
        """Load a page of which the browser remembers nothing."""
        while True:
            self.driver.get("about:blank")  # else a change after # alone would load nothing
            self.driver.get(file.as_uri() + address)
            if not self.run("const remembered = localStorage.length; localStorage.clear(); return remembered"):
                break

    def reload(self) -> None:
        """Reload the page at a person's pace: the browser learns later what the page wrote into the history."""
        time.sleep(0.5)
        self.driver.refresh()

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        texts = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return [str(text) for text in self.run(texts, selector)]

    def count(self) -> str:
        return str(self.find("#count").text)

    def touch(self, on: bool = True) -> None:
        """Be a device with a touch screen, and no mouse that hovers."""
        self.driver.execute_cdp_cmd(
            "Emulation.setTouchEmulationEnabled", {"enabled": on, "maxTouchPoints": int(on) or 1}
        )

    def tap(self, selector: str) -> None:
        """Touch the middle of an element, after scrolling to it; whatever lies on top there is hit."""
        middle = """
            const e = document.querySelector(arguments[0]);
            e.scrollIntoView({block: "nearest"});
            const box = e.getBoundingClientRect();
            return {x: box.x + box.width / 2, y: box.y + box.height / 2};"""
        point = self.run(middle, selector)
        for kind, points in (("touchStart", [point]), ("touchEnd", [])):
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)
            # A dialog that a key closes says so in the next frame, and the page then shows what changed.
            self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def choose(self, control: str, value: object) -> None:
        change = "const e = document.querySelector(arguments[0]); e.value = arguments[1]; "
        self.run(
            change + "for (const t of ['input', 'change']) e.dispatchEvent(new Event(t, {bubbles: true}))",
            control,
            value,
        )

    def pick(self, value: str) -> None:
        """Click the radio button of this value."""
        self.run("document.querySelector(`input[value=${arguments[0]}]`).click()", value)

    def wait(self, condition: Callable[[], Result | None]) -> Result:
        """What `condition` returns as soon as it is true."""
        result = WebDriverWait(self.driver, 60).until(lambda _: condition())
        assert result is not None  # `until` returns true values only
        return result

    def address(self) -> str:
        return str(self.run("return location.hash"))

    def requests(self) -> set[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]  # type: ignore[no-untyped-call]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        own = ("data:", "about:", "chrome:")  # the browser's start page asks for its images when it comes to it
        return {url.split("#")[0] for url in urls if not url.startswith(own)}

    def value(self, selector: str) -> str:
        return str(self.find(selector).get_property("value"))

    def download(self, selector: str, folder: Path) -> Path:
        """Click an element and wait for the file that this saves in `folder`."""
        before = set(folder.iterdir())
        allowed = {"behavior": "allow", "downloadPath": str(folder)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
        self.find(selector).click()

        def saved() -> Path | None:
            match list(set(folder.iterdir()) - before):
                case [Path(suffix=".jsonl") as file] if file.stat().st_size:
                    return file
            return None  # the browser writes a temporary file first, and may keep it beside the other for a moment

        return self.wait(saved)

    def contrasts(self) -> list[tuple[float, str]]:
        """For each piece of text: its contrast with what lies behind it (WCAG 2.2, 1.4.3), and what it is."""
        return [(float(ratio), str(name)) for ratio, name in self.run(CONTRASTS)]
