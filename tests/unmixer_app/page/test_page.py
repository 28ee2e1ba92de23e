"""The page in headless Chromium, as a producer uses it.

Screenshots go to artifacts/page, for a person to look at.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unmixer_app.serving import REPO, Server, sound
from unmixer_core.schema.patch import Patch
from unmixer_core.schema.rack import RACK
from unmixer_core.system.json_types import Json

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

#: There, what cannot be tested has failed.
CI = bool(os.environ.get("CI"))
sync_api = (
    importlib.import_module("playwright.sync_api")
    if CI
    else pytest.importorskip("playwright.sync_api")
)
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not CI, reason="no chromium here; `make browser` installs Debian's"
)
SHOTS = REPO / "artifacts" / "page"
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
] + (["--no-sandbox"] if os.geteuid() == 0 else [])
WITHIN_MS = 120_000
DESK, PHONE = {"width": 1240, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "CI needs chromium; `make browser` installs Debian's"
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """A function that opens the page.

    At the end nothing went wrong in it, and nothing went to another machine.
    """
    contexts, wrong = [], []

    def open_page(path: str = "/", **options: object) -> Page:
        context = browser.new_context(**({"viewport": DESK} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WITHIN_MS)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda message: (
                wrong.append(message.text) if "Content Security Policy" in message.text else None
            ),
        )
        page.on(
            "request",
            lambda request: None if own(request.url) else wrong.append(f"asks {request.url}"),
        )
        page.goto(server.url + path)
        return page

    def own(url: str) -> bool:
        return url.startswith((server.url, "blob:", "data:"))

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def page(opened: Callable[..., Page], answered: str) -> Page:
    """The page on an answer: Saturator, Delay, Reverb."""
    found = opened(f"/#job={answered}")
    found.wait_for_selector("#answer:not([hidden]) .dial")
    return found


def shot(page: Page, name: str, full: bool = True) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=full)


def chain(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("#chain .effect .name").all_text_contents()]


def rerendered(page: Page, deed: Callable[[], object]) -> Json:
    """What POST /render was asked in consequence of a deed, once it is answered."""
    with page.expect_response(lambda response: "/render" in response.url) as told:
        deed()
    assert told.value.status == 200
    return told.value.request.post_data_json


def test_a_dropped_file_is_followed_to_its_answer_and_heard(opened: Callable[..., Page]):
    page = opened()
    shot(page, "1-empty")
    page.evaluate("document.querySelector('#options').open = true")
    page.check("#opt-fast")
    page.fill("#opt-chain", "Saturator>Reverb")
    drop = """bytes => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], 'dropped.wav'));
      const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
      document.querySelector('#drop').dispatchEvent(new DragEvent('drop', options));
    }"""
    page.evaluate(drop, list(sound()))
    page.wait_for_selector("#progress:not([hidden])")
    page.wait_for_selector("#lane-a.heard")
    shot(page, "2-progress")
    page.wait_for_selector("#answer:not([hidden])")
    page.wait_for_selector("#hear-b[aria-checked=true]")
    assert page.text_content("#job-name") == "dropped.wav" and page.is_hidden("#progress")
    assert chain(page) == ["Saturator", "Reverb"]
    percent = page.text_content("#similarity")
    assert percent.endswith("%") and page.locator("#limits li").count() >= 1
    page.wait_for_selector("#candidates li")
    page.evaluate("document.activeElement.blur()")  # in a text field, X is a letter
    page.locator("body").press("x")
    assert page.locator("#hear-a").get_attribute("aria-checked") == "true"
    page.locator("body").press("Space")
    page.wait_for_selector("#play[aria-label=Stop]")
    page.wait_for_selector("#play[aria-label=Play]")
    assert page.locator("#jobs a[aria-current]").text_content().startswith("dropped.wav")


def test_a_and_b_are_equally_loud_and_one_key_changes_sides(page: Page):
    levels = page.evaluate("""async () => {
      const { Player } = await import('/page/player.js'), { rms } = await import('/page/pictures.js');
      const buffer = (level) => {
        const made = new AudioBuffer({length: 4410, sampleRate: 44100});
        made.copyToChannel(Float32Array.from({length: 4410}, (_, i) => level * Math.sin(i / 7)), 0);
        return made;
      };
      const player = new Player(), found = [];
      for (const [a, b] of [[0.5, 0.05], [0.05, 0.9], [3, 0.1]]) {
        player.set('a', buffer(a));
        player.set('b', buffer(b));
        const gains = player.gains();
        found.push([rms(player.buffers.a) * gains.a, rms(player.buffers.b) * gains.b, a * gains.a, b * gains.b]);
      }
      return found;
    }""")
    for a, b, peak_a, peak_b in levels:
        assert a == pytest.approx(b, rel=1e-3) and max(peak_a, peak_b) < 1.0
    sides = []
    for _ in range(3):
        page.locator("body").press("x")
        sides.append(page.locator("#hear-a").get_attribute("aria-checked"))
    assert sides == ["true", "false", "true"]


def test_the_chain_is_dragged_into_another_order(page: Page):
    grip, target = (
        page.locator("[data-key=saturator] .grip").bounding_box(),
        page.locator("[data-key=reverb]").bounding_box(),
    )

    def drag() -> None:
        page.mouse.move(grip["x"] + 8, grip["y"] + 20)
        page.mouse.down()
        page.mouse.move(target["x"] + 10, target["y"] + 20, steps=8)
        page.mouse.move(target["x"] + target["width"] - 8, target["y"] + 20, steps=8)
        page.mouse.up()

    asked = rerendered(page, drag)
    assert chain(page) == asked["chain"] == ["Delay", "Reverb", "Saturator"]
    page.wait_for_function(
        "() => document.querySelector('#edited').textContent.startsWith('Edited')"
    )
    shot(page, "3-reordered")
    asked = rerendered(page, lambda: page.click("#undo"))
    assert chain(page) == asked["chain"] == ["Saturator", "Delay", "Reverb"] and page.is_disabled(
        "#undo"
    )


def test_the_chain_is_worked_by_keyboard(page: Page):
    page.focus("[data-key=saturator] .name")
    asked = rerendered(page, lambda: page.keyboard.press("Alt+ArrowRight"))
    assert asked["chain"] == ["Delay", "Saturator", "Reverb"]
    assert page.text_content("#chain-said") == "Saturator is now 2 of 3."
    assert page.evaluate("document.activeElement.closest('li').dataset.key") == "saturator", (
        "the focus goes along"
    )
    assert rerendered(page, lambda: page.keyboard.press("o"))["chain"] == ["Delay", "Reverb"]
    assert page.locator("[data-key=saturator].off").count() == 1
    assert rerendered(page, lambda: page.keyboard.press("o"))["chain"] == [
        "Delay",
        "Saturator",
        "Reverb",
    ]
    page.keyboard.press("l")
    assert page.locator("[data-key=saturator] .lock").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Alt+ArrowRight")
    assert chain(page) == ["Delay", "Saturator", "Reverb"], "what is locked stays"
    assert page.text_content("#chain-said") == "Saturator is locked."
    left_alone = """(name, options) => {
      const event = new KeyboardEvent('keydown', {bubbles: true, cancelable: true, ...options});
      return document.querySelector('[data-key=saturator] .name').dispatchEvent(event);
    }"""
    asks = lambda **options: page.evaluate(f"options => ({left_alone})(0, options)", options)  # noqa: E731
    assert not asks(key="ArrowLeft", altKey=True), "the browser does not go back"
    assert asks(key="l", ctrlKey=True) and asks(key="o", metaKey=True), (
        "the browser's own keys stay its own"
    )
    assert page.locator("[data-key=saturator] .lock").get_attribute("aria-pressed") == "true"
    assert page.locator("[data-key=saturator].off").count() == 0
    page.keyboard.press("Enter")
    page.wait_for_selector("#device.locked .dial[aria-disabled=true]")


def test_what_is_locked_is_kept_by_another_search(page: Page):
    page.click("[data-key=saturator] .name")
    dial = page.locator("#device .dial[aria-label=Drive]")
    rerendered(page, lambda: dial.press("End"))
    page.click("[data-key=saturator] .lock")
    assert page.text_content("#again") == "Search again, keeping Saturator"
    with page.expect_request(lambda request: request.url.endswith("/again")) as told:
        page.click("#again")
    options = told.value.post_data_json
    highest = float(RACK.knobs[RACK.knob_index["saturator.drive"]].knob.to_physical(1.0))
    drive = next(word for word in options["lock"] if word.startswith("saturator.drive="))
    assert (
        float(drive.partition("=")[2]) == pytest.approx(highest)
        and options["chain"] == "Saturator>Delay>Reverb"
    )
    page.wait_for_selector("#answer:not([hidden])")
    page.click("[data-key=saturator] .name")
    shown = page.locator("#device .dial[aria-label=Drive]").get_attribute("aria-valuenow")
    assert float(shown) == pytest.approx(highest, rel=1e-4)


def test_a_knob_is_turned_and_heard(page: Page):
    def unit(body: Json) -> float:
        found = next(device for device in body["devices"] if device["key"] == "reverb")
        return float(found["knobs"]["decay_time"]["unit"])

    page.click("[data-key=reverb] .name")
    dial = page.locator("#device .dial[aria-label='Decay Time']")
    assert page.locator("#device .dial .interval").count() >= 2
    assert dial.get_attribute("aria-description").startswith("90 % between ")
    before, score = dial.get_attribute("aria-valuenow"), page.text_content("#similarity")
    asked = rerendered(page, lambda: [dial.press("PageUp") for _ in range(3)])
    assert float(dial.get_attribute("aria-valuenow")) > float(before)
    page.wait_for_selector("#play[aria-label=Stop]")
    dial.evaluate("dial => dial.scrollIntoView({block: 'center'})")
    box = dial.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, box["y"] + 140, steps=5)
    with page.expect_response(
        lambda told: "/render" in told.url and unit(told.request.post_data_json) < unit(asked)
    ):
        page.mouse.up()
    page.wait_for_function(
        "() => document.querySelector('#edited').textContent.startsWith('Edited')"
    )
    shot(page, "4-turned")
    rerendered(page, lambda: dial.press("Backspace"))
    page.wait_for_function(f"() => document.querySelector('#similarity').textContent === {score!r}")


def test_a_finger_turns_a_knob_sideways_and_scrolls_the_page_over_it(
    opened: Callable[..., Page], answered: str
):
    page = opened(f"/#job={answered}", viewport=PHONE, has_touch=True)
    page.click("[data-key=reverb] .name")
    dial = page.locator("#device .dial[aria-label='Decay Time']")
    touch = page.context.new_cdp_session(page)

    def swipe(right: int, down: int) -> None:
        """From the knob's middle, in steps, as a finger does."""
        box = dial.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch.send(
            "Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}
        )
        for share in (0.2, 0.4, 0.6, 0.8, 1.0):
            points = [{"x": x + share * right, "y": y + share * down}]
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": points})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    dial.evaluate("dial => dial.scrollIntoView({block: 'center'})")
    before, top = float(dial.get_attribute("aria-valuenow")), page.evaluate("scrollY")
    swipe(0, 120)
    page.wait_for_function(f"() => scrollY < {top} - 40", timeout=20_000)
    assert float(dial.get_attribute("aria-valuenow")) == before
    rerendered(page, lambda: swipe(60, 0))
    assert float(dial.get_attribute("aria-valuenow")) > before


def test_knobs_read_as_the_schema_says(page: Page):
    """The page's own laws and roundings are Python's, for every knob, all along its range."""
    units = [0.0, 0.013, 0.25, 0.5, 0.777, 1.0]
    found = page.evaluate(
        """async units => {
          const laws = await import('/page/laws.js'), schema = await (await fetch('/schema')).json();
          return schema.devices.flatMap(device => device.knobs).map(knob => units.map(unit =>
            [laws.raw(knob, unit), laws.physical(knob, unit), laws.unitOf(knob, laws.physical({...knob, integer: false}, unit))]));
        }""",
        units,
    )
    assert len(found) == len(RACK.knobs)
    for ref, rows in zip(RACK.knobs, found, strict=True):
        for unit, (raw, physical, back) in zip(units, rows, strict=True):
            assert raw == pytest.approx(float(ref.knob.to_raw(unit)), rel=1e-6, abs=1e-9), ref.id
            assert physical == pytest.approx(
                float(ref.knob.to_physical(unit)), rel=1e-6, abs=1e-6
            ), ref.id
            assert back == pytest.approx(unit, abs=1e-5), ref.id


def test_candidates_are_auditioned_and_used(page: Page):
    assert page.locator("#candidates li").count() >= 1
    page.click("#candidates button[aria-label='Hear candidate 1']")
    page.wait_for_function(
        "() => document.querySelector('#distance').textContent.includes('candidate 1')"
    )
    asked = rerendered(page, lambda: page.click("#candidates button[aria-label='Use candidate 1']"))
    assert asked["chain"] == chain(page)


def test_a_candidate_in_use_is_what_is_saved_and_named(page: Page, answered: str, server: Server):
    def saved() -> Json:
        with page.expect_download() as got:
            page.click("#get-patch")
        return json.loads(Path(got.value.path()).read_bytes())

    assert page.text_content("#edited") == "The answer"
    rerendered(page, lambda: page.click("#candidates button[aria-label='Use candidate 1']"))
    wanted = server.client.get(f"/jobs/{answered}/candidates").json()[0]
    candidate = server.client.get(wanted["patch"]).json()
    assert saved() == candidate and page.text_content("#edited") == "Candidate 1"
    with page.expect_request("**/push") as asked:
        page.click("#push")
    assert asked.value.post_data_json["chain"] == candidate["chain"]
    rerendered(page, lambda: page.click("#undo"))
    assert page.text_content("#edited") == "The answer"
    assert saved() == server.client.get(f"/jobs/{answered}/patch.json").json()


def test_patch_preset_sound_and_report_are_downloaded(page: Page, answered: str, server: Server):
    def download(button: str) -> tuple[str, bytes]:
        with page.expect_download() as got:
            page.click(button)
        return got.value.suggested_filename, Path(got.value.path()).read_bytes()

    name, data = download("#get-patch")
    assert (
        name == "pluck.patch.json"
        and json.loads(data) == server.client.get(f"/jobs/{answered}/patch.json").json()
    )
    name, data = download("#get-preset")
    assert name == "pluck.vital" and json.loads(data)["settings"]
    assert download("#get-sound")[1].startswith(b"RIFF") and b"<audio" in download("#get-report")[1]
    page.click("[data-key=delay] .power")
    assert Patch.from_dict(json.loads(download("#get-patch")[1])).effects == ("Saturator", "Reverb")


def test_send_to_live_tells_what_was_read_back(page: Page):
    page.click("#push")
    page.wait_for_selector("#pushed[data-good=true]")
    words = page.text_content("#pushed")
    assert "pluck (un-mixed)" in words and "values read back as sent" in words
    shot(page, "5-pushed")


def test_a_file_that_is_no_sound_is_refused_in_its_words(opened: Callable[..., Page]):
    page = opened()
    page.set_input_files(
        "#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not a sound"}
    )
    page.wait_for_selector("#notice:not([hidden])")
    assert page.text_content("#notice").startswith("Notes.txt cannot be read as audio")
    shot(page, "6-refused", full=False)


def test_a_recording_becomes_a_job(opened: Callable[..., Page]):
    """Chromium's fake microphone beeps."""
    page = opened()
    page.evaluate("document.querySelector('#options').open = true")
    page.check("#opt-fast")
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    page.wait_for_function("() => document.querySelector('#level').value > 0.01")
    page.wait_for_timeout(1500)
    with page.expect_response(lambda response: response.url.endswith("/unmix")) as told:
        page.click("#record")
    assert told.value.status == 202 and told.value.json()["name"].startswith("recording ")


def test_a_second_click_while_the_browser_asks_for_the_microphone_starts_no_second_recorder(
    opened: Callable[..., Page],
):
    page = opened()
    page.evaluate("""() => {
      const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      window.asked = 0;
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        window.asked += 1;
        await new Promise((resolve) => { window.allow = resolve; });
        return real(wanted);
      };
      for (let i = 0; i < 2; i++) document.querySelector('#record').click();
    }""")
    assert page.evaluate("window.asked") == 1 and page.is_disabled("#record")
    page.evaluate("window.allow()")
    page.wait_for_selector("#record[aria-pressed=true]:enabled")


def test_a_microphone_that_cannot_be_heard_is_let_go(opened: Callable[..., Page]):
    page = opened()
    page.evaluate("""() => {
      const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => (window.stream = await real(wanted));
      window.AudioContext = class { constructor() { throw new Error('no sound card'); } };
      document.querySelector('#record').click();
    }""")
    page.wait_for_selector("#notice:not([hidden])")
    assert page.evaluate("window.stream.getTracks().every(track => track.readyState === 'ended')")
    assert page.is_enabled("#record")


def test_that_a_search_failed_stays_to_be_read(
    opened: Callable[..., Page], answered: str, server: Server
):
    """A failed job, as the service would tell it."""
    failed = server.client.get(f"/jobs/{answered}").json() | {
        "state": "failed",
        "message": "it broke.",
    }
    page = opened()
    page.wait_for_selector("#jobs a")
    page.route(
        f"**/jobs/{answered}", lambda route: route.fulfill(json=failed | {"state": "running"})
    )
    events = f"event: end\ndata: {json.dumps(failed)}\n\n"
    page.route(
        "**/events", lambda route: route.fulfill(body=events, content_type="text/event-stream")
    )
    with page.expect_response(lambda response: response.url.endswith("/events")):
        page.evaluate(f"location.hash = 'job={answered}'")
    with page.expect_response(lambda response: response.url.endswith("/jobs")):
        page.wait_for_selector("#notice:not([hidden])")
    page.wait_for_timeout(300)
    assert page.text_content("#notice") == "The search failed: it broke." and page.is_visible(
        "#notice"
    )


def test_of_two_quick_clicks_the_second_counts(
    opened: Callable[..., Page], answered: str, server: Server
):
    """The first job's answer comes later than the second's."""
    slow = "f" * 16
    page = opened()
    held: list[Route] = []
    page.route(f"**/jobs/{slow}", lambda route: held.append(route))
    page.evaluate(f"location.hash = 'job={slow}'")
    page.wait_for_timeout(200)
    page.evaluate(f"location.hash = 'job={answered}'")
    page.wait_for_selector("#answer:not([hidden]) .dial")
    assert len(held) == 1
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    held[0].fulfill(
        json=server.client.get(f"/jobs/{answered}").json() | {"id": slow, "name": "late.wav"}
    )
    page.wait_for_timeout(500)
    assert page.text_content("#job-name") == "pluck.wav" and page.is_visible("#answer")
    assert not any(slow in url for url in asked)


def test_a_page_that_was_opened_too_early_gets_going_by_itself(
    opened: Callable[..., Page], answered: str, server: Server
):
    page = opened("/page/icon.svg")
    left = [1]

    def refuse_once(route: Route) -> None:
        left[0] -= 1
        route.abort() if left[0] >= 0 else route.continue_()

    page.route("**/schema", refuse_once)
    page.goto(f"{server.url}/#job={answered}")
    page.wait_for_selector("#answer:not([hidden]) .dial")


@pytest.mark.parametrize("name", ["dark", "phone", "phone-dark"])
def test_the_page_holds_in_the_dark_and_on_a_phone(
    opened: Callable[..., Page], answered: str, name: str
):
    options: Json = {"color_scheme": "dark" if "dark" in name else "light"}
    if "phone" in name:
        options |= {"viewport": PHONE, "has_touch": True, "device_scale_factor": 2}
    page = opened(f"/#job={answered}", **options)
    page.wait_for_selector("#answer:not([hidden]) .dial")
    page.wait_for_function("() => document.querySelector('#lane-b canvas').width > 10")
    shot(page, f"7-{name}")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], "nothing is wider than the screen"
    faint = page.evaluate(CONTRAST)
    assert faint == [], "every text can be read"


def test_everything_is_reached_by_tab_and_named(page: Page):
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, select, input, [role=slider], a, canvas')]
      .filter(e => e.checkVisibility())
      .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')?.textContent.trim()))
      .concat([...document.querySelectorAll('meter:not([aria-label]), progress:not([aria-label])')])
      .map(e => e.outerHTML)""")
    assert nameless == []
    reached = set()
    page.focus("h1 a")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"choose", "record", "play", "hear-b", "name", "lock", "power", "dial"} <= reached


CONTRAST = """() => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parts = (colour) => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return parts(colour);
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest(':disabled, .silent, .off, option, .hidden-words')) continue;
    const [a, b] = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${e.tagName} ${e.id || e.className} ${e.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return found;
}"""
