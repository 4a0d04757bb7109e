"""The page of the server in a real browser, where Chromium and its driver are installed."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.running import Client

pytestmark = pytest.mark.slow
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT = 30
"""Seconds that a part of the page may take to come on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    paths = shutil.which("chromium"), shutil.which("chromedriver")
    if None in paths:
        pytest.skip("wants chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser: Any, client: Client) -> Any:
    """The page, its runs listed."""
    browser.set_window_size(1100, 900)
    browser.get(f"{client.url}/")
    until(browser, lambda: len(all_of(browser, "#model option")) == len(client.get("/v1/models").tree["data"]))
    return browser


def until(browser: Any, is_so: Any) -> None:
    """Wait for something to be so."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT).until(lambda _: is_so())


def all_of(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def one(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def choose(browser: Any, selector: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(one(browser, selector)).select_by_value(value)


def fill(browser: Any, **settings: object) -> None:
    """Open the settings and fill them in."""
    browser.execute_script("document.getElementById('settings').open = true")
    for name, value in settings.items():
        field = one(browser, f"[name={name}]")
        field.clear()
        field.send_keys(str(value))


def write(browser: Any, prompt: str) -> None:
    """Have the page go on from a prompt, and wait for its end."""
    one(browser, "#prompt").clear()
    one(browser, "#prompt").send_keys(prompt)
    one(browser, "#go").click()
    ended(browser)


def ended(browser: Any) -> None:
    until(browser, lambda: all_of(browser, ".told")[-1].text and not one(browser, "#stop").is_enabled())


def text_of(browser: Any, pane: int = 0) -> str:
    return browser.execute_script(f"return document.querySelectorAll('.text')[{pane}].textContent")


def test_a_prompt_becomes_the_text_that_the_server_gives(page: Any, client: Client):
    """With every token as a part of its own, and nothing in the browser's log."""
    choose(page, "#model", "gpt")
    fill(page, seed=5, max_tokens=24, top_k=20)
    write(page, "the king")
    asked = {"model": "gpt", "prompt": "the king", "seed": 5, "max_tokens": 24, "temperature": 1, "top_k": 20}
    text = client.post("/v1/completions", **asked).tree["choices"][0]["text"]
    assert text_of(page) == "the king" + text
    assert len(text) > 5 and len(all_of(page, ".token")) > 5
    assert one(page, ".told").text.startswith("24 tokens")
    assert page.get_log("browser") == []


def test_a_token_shows_its_alternatives_and_another_can_be_taken(page: Any):
    choose(page, "#model", "names")
    fill(page, seed=1, max_tokens=8)
    write(page, "em")
    tokens = all_of(page, ".token")
    before = tokens[0].text
    tokens[0].click()
    choices = all_of(page, "#alternatives button")
    shares = [float(choice.find_element("css selector", "span").text.removesuffix(" %")) for choice in choices]
    assert len(shares) >= 8 and shares == sorted(shares, reverse=True) and sum(shares) <= 102
    assert one(page, "#alternatives [aria-current=true] code").text == before
    other = next(
        choice for choice in choices if choice.get_attribute("aria-current") == "false" and choice.is_enabled()
    )
    taken = other.find_element("css selector", "code").text
    other.click()
    ended(page)
    assert text_of(page).startswith("em" + taken)
    assert not one(page, "#alternatives").is_displayed()


def test_two_runs_write_side_by_side(page: Any):
    choose(page, "#model", "names")
    choose(page, "#other", "bigram")
    fill(page, max_tokens=6)
    write(page, "a")
    left, right = all_of(page, ".pane")
    assert [pane.find_element("css selector", "h2").text for pane in (left, right)] == ["names", "bigram"]
    assert left.rect["y"] == right.rect["y"] and left.rect["x"] < right.rect["x"]
    assert text_of(page, 0).startswith("a") and text_of(page, 1).startswith("a")


def test_what_the_server_refuses_is_said_in_its_words(page: Any):
    choose(page, "#model", "names")
    fill(page, max_tokens=5)
    write(page, "№")
    assert "№" in one(page, ".told .error").text and "prompt" in one(page, ".told .error").text


def test_it_fits_a_phone_and_is_dark_where_that_is_wanted(page: Any):
    """Nothing is wider than the screen, the box of alternatives neither."""
    page.set_window_size(390, 844)
    choose(page, "#model", "names")
    fill(page, max_tokens=8)
    write(page, "em")
    all_of(page, ".token")[-1].click()
    wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.execute_script(wide)
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.execute_script(ground)
    one(page, "#theme").click()
    assert page.execute_script(ground) != light
    one(page, "#theme").click()
    assert page.execute_script(ground) == light
