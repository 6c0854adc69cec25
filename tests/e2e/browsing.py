"""A real browser on the console: pages that may not complain, their pictures, and what axe-core and a ruler find."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from tests.support.patience import patient

CHROMIUM = shutil.which("chromium")
PICTURES = os.environ.get("CONSOLE_PICTURES", "")
"""The folder for pictures of each page; "" = none are kept."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window; the test is skipped where it cannot start."""
    options = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    expect.set_options(timeout=patient(15) * 1000)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        except Error as error:
            pytest.skip(f"Chromium cannot start here: {str(error).splitlines()[0]}")
        yield started
        started.close()


@contextmanager
def page_of(browser: Browser, **options: object) -> Iterator[Page]:
    """A page with cookies of its own; what the browser complains of fails the test."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(patient(15) * 1000)
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert complaints == []
    context.close()


def picture(page: Page, name: str) -> None:
    """Keep a picture of the whole page, where CONSOLE_PICTURES names a folder."""
    if PICTURES:
        page.screenshot(path=Path(PICTURES, f"{name}.png"), full_page=True)


def faults_of(page: Page, with_axe: bool = True) -> list[str]:
    """What axe-core finds serious (the page's context needs bypass_csp), and how much wider it is than its window."""
    violations = Axe().run(page).response["violations"] if with_axe else []
    serious = [one for one in violations if one["impact"] in ("serious", "critical")]
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    found = [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in serious]
    return found + ([f"{wide} px too wide"] if wide > 0 else [])
