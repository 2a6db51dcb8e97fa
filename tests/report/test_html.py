"""The page: what it says, by what was drawn; in a browser, by clicks and keys."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.report.browser import CHROMIUM, Page
from tests.report.decisions import drawn_decision, drawn_trace
from tvm_sphinx.report.html import report_content, report_page
from tvm_sphinx.report.text import format_ns

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


def write_page(path: Path, blocks: int, *, traced: bool = True) -> dict:
    decision, graph = drawn_decision(blocks)
    trace = drawn_trace(decision, graph) if traced else None
    content = report_content(decision, graph, "net </script>.sphinx", "a summary", trace=trace)
    path.write_text(report_page(content))
    return content


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("page") / "small.html"
    return path, write_page(path, 6)


def test_the_page_is_complete_in_itself(small: tuple[Path, dict]) -> None:
    path, content = small
    page = path.read_text()
    assert not re.findall(r"https?://|src=|@import|url\(", page)
    told = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert told is not None
    assert json.loads(told[1]) == json.loads(json.dumps(content))
    assert "<title>net &lt;/script&gt;.sphinx</title>" in page


def test_a_program_that_was_not_run_says_so(tmp_path: Path) -> None:
    content = write_page(tmp_path / "page.html", 2, traced=False)
    assert content["measured"] is None
    assert content["not_measured"] == "It was not run."


@in_browser
def test_clicks_and_keys(small: tuple[Path, dict]) -> None:
    path, content = small
    with Page(path) as page:
        assert page.ask("document.querySelector('#title').textContent") == "net </script>.sphinx"
        assert page.ask("document.querySelector('#summary').textContent") == "a summary"
        hint = page.ask("document.querySelector('#timeline-hint').textContent")
        assert format_ns(content["measured"]["makespan_ns"]) in hint
        assert format_ns(content["makespan_ns"]) in hint

        # A click on the last task's measured bar shows that task, and what else it would cost.
        last = len(content["measured"]["steps"]) - 1
        x, y = page.ask(
            f"(() => {{ const r = sphinxReport, b = r.bars[{last}]; "
            "const box = document.querySelector('#time-canvas').getBoundingClientRect(); "
            "return [box.left + r.barX(b) + 3, box.top + r.barTop(b) + 4]; })()"
        )
        page.click(x, y)
        task = content["measured"]["steps"][last]["task"]
        shown = page.ask("document.querySelector('#details').innerText")
        assert content["tasks"][task]["name"] in shown
        assert content["tasks"][task]["waited"] in shown
        for device, one in zip(content["devices"], content["tasks"][task]["alternatives"], strict=True):
            assert device["name"] in shown
            assert format_ns(one["exec"]) in shown

        # n goes to the device's next task, p back.
        page.key("p")
        before = page.ask("document.querySelector('#details h3').textContent")
        page.key("n")
        assert page.ask("document.querySelector('#details h3').textContent") != before

        # Folded occurrences are one box each; a click on the button unfolds them.
        folded = page.ask("sphinxReport.boxes().length")
        page.ask("document.querySelector('#fold').click()")
        unfolded = page.ask("sphinxReport.boxes().length")
        assert unfolded == len(content["tasks"])
        assert folded <= unfolded - sum(len(group["tasks"]) - 1 for group in content["groups"])

        # A box is named as its task is everywhere else; what is too long for it ends in dots.
        page.ask(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        )
        labels = page.ask("sphinxReport.boxes().map(sphinxReport.boxLabel)")
        assert labels[0].split(" ")[0] == content["tasks"][0]["name"]
        drawn = dict(page.ask("[...sphinxReport.fits]"))
        assert len(set(labels) & set(drawn)) > 5
        for label, text in drawn.items():
            assert label.startswith(text.removesuffix("\u2026"))
            assert text == label or text.endswith("\u2026")
        assert not page.ask("document.querySelector('#folding').hidden")

        # The filter leaves those of one node of the source; the link of a source line sets it.
        page.key("/")
        for letter in "block3":
            page.key(letter)
        assert (
            page.ask("document.querySelector('#shown').textContent") == f"1 of {len(content['tasks'])}"
        )
        page.key("Escape")
        page.ask("document.querySelector('#task-table [data-origin]').click()")
        assert page.ask("document.querySelector('#filter').value") == content["tasks"][0]["origin"][0]
        page.ask("document.querySelector('#filter').value = ''")

        # Sorting by time puts the longest last, then first.
        for _ in range(2):
            page.ask("document.querySelector('[data-column=\"3\"]').click()")
        longest = max(content["tasks"], key=lambda t: t["finish"] - t["start"])
        top = page.ask("document.querySelector('.row span').textContent")
        durations = {t["name"]: t["finish"] - t["start"] for t in content["tasks"]}
        assert durations[top] == longest["finish"] - longest["start"]

        # Light and dark.
        colours = []
        for _ in range(2):
            page.key("d")
            colours.append(page.ask("getComputedStyle(document.body).backgroundColor"))
        assert set(colours) == {"rgb(13, 17, 23)", "rgb(255, 255, 255)"}

        # Printed, the table has all rows; and nothing was asked for but the page.
        page.ask("window.dispatchEvent(new Event('beforeprint'))")
        assert page.ask("document.querySelectorAll('.row').length") == len(content["tasks"])
        text = page.ask("document.body.innerText")
        for name, value in (*content["proof"], *content["machine"]):
            assert name in text
            assert value in text
        assert page.requests == [path.absolute().as_uri()]
        assert page.errors == []


@in_browser
def test_two_thousand_tasks_scroll_and_zoom(
    tmp_path: Path, record_property: pytest.FixtureRequest
) -> None:
    """Rows are as many as are to be seen; every task is there; what a frame takes is noted."""
    content = write_page(tmp_path / "big.html", 500)
    assert len(content["tasks"]) == 2000
    with Page(tmp_path / "big.html") as page:
        assert page.ask("document.querySelectorAll('.row').length") < 60
        page.ask("document.querySelector('#task-table').scrollTop = 1e9")
        page.until("[...document.querySelectorAll('.row')].some((row) => row.dataset.task === '1999')")
        times = page.ask(FRAMES)
        record_property("frame_ms", times)
        assert all(len(values) == 60 for values in times.values())
        assert page.errors == []


# Zooms and moves both drawings for 60 frames; returns what drawing each frame took, ms.
FRAMES = """(async () => {
  const told = {};
  document.querySelector('#fold').click();
  for (const name of ['timeView', 'graphView']) {
    const view = sphinxReport[name];
    view.reset(); view.now(); view.frames.length = 0;
    for (let i = 0; i < 60; i++) {
      if (i % 2) view.zoomAt(i < 30 ? 1.25 : 0.8, 500, 100); else view.move(i < 30 ? -40 : 40, 10);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    }
    told[name] = view.frames.slice(0, 60);
  }
  return told;
})()"""
