"""The demo's page in a browser, with a real cloud process."""

from __future__ import annotations

import os
import re
import signal

import pytest
from playwright.sync_api import Locator, Page, expect
from web_page import PEOPLE
from web_page import Page as Served

SIZES = [(360, 740), (768, 1024), (1400, 900)]


def _send(page: Page, times: int = 1) -> None:
    """Press the button so often, each time until the answer is there."""
    for _ in range(times):
        before = page.locator("#history tr").count()
        page.get_by_role("button", name=re.compile("^Send")).click()
        expect(page.locator("#history tr")).to_have_count(before + 1)
        expect(page.locator("#send")).to_have_text("Send again, with a fresh key")


def _pixels(canvases: Locator) -> list[str]:
    return canvases.evaluate_all("all => all.map(canvas => canvas.toDataURL())")


def test_pick_send_and_see(page: Page) -> None:
    page.get_by_role("button", name="Pick 4 for me").click()
    expect(page.locator("#count")).to_have_text("4 picked")
    page.locator(".face :checked").first.uncheck()
    _send(page)

    expect(page.locator("#kept li")).to_have_count(4)
    expect(page.locator("#kept .decoy")).to_have_count(1)
    maps = _pixels(page.locator("#received canvas"))
    assert len(set(maps)) == 4
    expect(page.locator("#predictions > li")).to_have_count(3)
    expect(page.locator("#verdict")).to_have_text(re.compile("^[0-3] of 3 recognised$"))
    expect(page.locator("#cost dt")).to_have_text(["Up", "Down", "Edge", "Network", "Cloud"])
    sizes = [float(text.split()[0]) for text in page.locator("#cost dd:nth-of-type(1)").all_text_contents()]
    assert min(sizes) > 0
    for prediction in page.locator("#predictions > li").all():
        assert prediction.locator("strong").inner_text()[0] in "✓✗"
        assert prediction.locator("img").count() == 2
    loaded = page.locator("#results img").evaluate_all(
        "all => Promise.all(all.map(image => image.decode().then(() => image.naturalWidth)))"
    )
    assert set(loaded) == {32}
    expect(page.locator("#honesty")).to_contain_text("independent component analysis")


def test_the_same_faces_again_are_other_mixtures(page: Page) -> None:
    page.locator("#some").click()
    _send(page)
    first = _pixels(page.locator("#received canvas"))
    expect(page.locator("#before")).to_be_hidden()
    _send(page)
    assert _pixels(page.locator("#received-before canvas")) == first
    assert not set(first) & set(_pixels(page.locator("#received canvas")))


def test_other_channels(page: Page) -> None:
    page.locator("#some").click()
    _send(page)
    slider = page.get_by_role("slider", name="Show")
    seen = set()
    for channel, name in (("0", "the mean of all channels"), ("1", "channel 1 of 8"), ("8", "channel 8 of 8")):
        slider.fill(channel)
        expect(page.locator("#map-name")).to_have_text(name)
        seen.update(_pixels(page.locator("#received canvas")))
    assert len(seen) == 3 * 4


def test_models_and_wire_dtypes(page: Page) -> None:
    page.locator("#some").click()
    page.get_by_role("radio", name="Baseline, trained without it").check()
    page.get_by_role("combobox", name="On the wire").select_option("float16")
    _send(page)
    page.get_by_role("combobox", name="On the wire").select_option("float32")
    _send(page)
    rows = page.locator("#history tr").all()
    half, full = [[cell.inner_text() for cell in row.locator("th, td").all()] for row in reversed(rows)]
    assert (half[:3], full[:3]) == (["1", "baseline", "float16"], ["2", "baseline", "float32"])
    assert float(full[4].split()[0]) > 1.9 * float(half[4].split()[0])


def test_no_more_than_fit(page: Page) -> None:
    boxes = page.locator(".face input")
    for number in range(20):
        boxes.nth(number).check()
    boxes.nth(20).click()
    expect(page.locator("#count")).to_have_text("20 at most")
    expect(boxes.nth(20)).not_to_be_checked()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#count")).to_have_text("0 picked")
    expect(page.locator(".face :checked")).to_have_count(0)


def test_nothing_is_sent_where_nothing_is_picked(page: Page) -> None:
    send = page.get_by_role("button", name="Send")
    expect(send).to_have_attribute("aria-disabled", "true")
    with pytest.raises(Exception, match="Timeout"):  # Playwright waits for a button that is enabled
        send.click(timeout=500)
    send.press("Enter")
    expect(page.locator("#empty")).to_be_visible()


def test_keyboard_alone(page: Page) -> None:
    for wanted in (".skip", "#some", "#clear", ".face input >> nth=0"):
        page.keyboard.press("Tab")
        expect(page.locator(wanted)).to_be_focused()
    columns = page.locator("#faces").evaluate("faces => getComputedStyle(faces).gridTemplateColumns.split(' ').length")
    for key, at in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("ArrowLeft", columns),
        ("ArrowUp", 0),
        ("ArrowUp", 0),
    ):
        page.keyboard.press(key)
        expect(page.locator(".face input").nth(at)).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("End")
    expect(page.locator(".face input").last).to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator("#count")).to_have_text("2 picked")
    for wanted in ("[name=network]:checked", "#dtype", "#send"):
        page.keyboard.press("Tab")
        expect(page.locator(wanted)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#predictions > li")).to_have_count(2)
    expect(page.locator("#send")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.locator(".face input").last).to_be_focused()


def test_everything_has_a_name(page: Page) -> None:
    page.locator(".face input").first.check()
    _send(page, 2)
    nameless = page.evaluate(
        """() => ["input, select, button, output", "[role=img], [role=group], [role=region]"]
            .flatMap(kind => [...document.querySelectorAll(kind)])
            .filter(node => !(node.labels?.length || node.ariaLabel || node.textContent.trim()
                              || document.getElementById(node.getAttribute("aria-labelledby"))))
            .map(node => node.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator(".face").all_text_contents() == [""] * 4 * PEOPLE  # their names are their images'
    expect(page.get_by_role("checkbox", name="Person 2, photograph 1", exact=True)).to_have_count(1)
    expect(page.get_by_role("img", name=re.compile("^Row 1 as the cloud receives it"))).to_have_count(2)
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, scheme: str) -> None:
    """Contrast of 4.5 or more (WCAG 1.4.3), of every text on its ground."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.locator("#some").click()
    _send(page, 2)
    assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("size", SIZES)
def test_it_fits(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.locator("#some").click()
    _send(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    beyond = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter(node => !node.closest(".scroll, .hidden, .skip"))
            .filter(node => node.getBoundingClientRect().right > innerWidth + 1)
            .map(node => node.outerHTML.slice(0, 80))"""
    )
    assert beyond == []


def test_a_cloud_that_ends_and_comes_back(page: Page, served: Served) -> None:
    page.locator("#some").click()
    _send(page)
    before = page.locator("#cloud").inner_text()
    os.kill(int(str(served.cloud.state["pid"])), signal.SIGKILL)
    page.locator("#send").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The cloud is gone: nobody answers at its address.")
    expect(page.locator("#verdict")).to_have_text("No answer.")
    expect(page.locator("#cloud")).to_have_text("The cloud has ended; it is being started again")
    expect(page.locator("#predictions > li")).to_have_count(0)

    expect(page.locator("#cloud")).to_have_class("pill running", timeout=60_000)
    assert page.locator("#cloud").inner_text() != before
    _send(page)
    expect(alert).to_be_hidden()
    expect(page.locator("#predictions > li")).to_have_count(4)


CONTRAST = """() => {
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || ["SCRIPT", "NOSCRIPT", "OPTION"].includes(node.tagName)) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${node.outerHTML.slice(0, 90)}`);
  }
  return bad;
}"""
