"""The page: one file that needs nothing else, in a real browser without an error, every picture shown."""

import html.parser
import re
import shutil
import subprocess

import pytest

from repro.reporting import statements
from repro.reporting.page import Answer, Picture, Section, page
from repro.reporting.report import write
from repro.reporting.sheets import Column, Link, Sheet

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NASTY = "\"><script>alert(1)</script><img src=x onerror=alert(1)> & 'quoted'"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><defs></defs><rect width="8" height="8"/></svg>'
COUNT = """<script>addEventListener('load', () => {
  const shown = [...document.images].filter(image => image.complete && image.naturalWidth > 0).length;
  document.body.dataset.found = `${shown} of ${document.images.length}, `
    + (document.documentElement.scrollWidth <= innerWidth ? 'fits' : 'too wide');
})</script>"""


def small(text):
    sheet = Sheet("s", text, text, (Column(text, text), Column("b")), ((text, Link(text, text)),), (text,), ())
    picture = Picture(text, text, text, b"", SVG)
    section = Section(text, text, text, (sheet,), (picture,), (picture,))
    return page(text, Answer(text, text), {text: text}, [section], [text])


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_names_bring_no_markup_along():
    harmless, nasty = Reader(small("harmless")).tags, Reader(small(NASTY)).tags
    assert [tag for tag, _ in nasty] == [tag for tag, _ in harmless]
    assert [sorted(attributes) for _, attributes in nasty] == [sorted(attributes) for _, attributes in harmless]


def test_the_page_needs_no_network_and_no_script(paper_contents, tmp_path):
    text = write(
        tmp_path, paper_contents, statements.load(), studies=["best"], ui_url="http://mlflow:5000"
    ).index.read_text()
    tags = Reader(text).tags
    assert not {"script", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    fetched = [
        value for _, attributes in tags for name, value in attributes.items() if name in {"src", "srcset", "data"}
    ]
    fetched += [attributes["href"] for tag, attributes in tags if tag == "link"]
    assert fetched
    assert all(value.startswith("data:") for value in fetched)
    assert not re.search(r"@import|url\(", text)
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    linked = [attributes["href"] for tag, attributes in tags if tag == "a"]
    runs = [href for href in linked if href.startswith("http://mlflow:5000/#/experiments/1/runs/")]
    assert len(runs) == 3
    named = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {href[1:] for href in linked if href.startswith("#")} <= named


def test_the_answer_stands_first(paper_contents, tmp_path):
    written = write(tmp_path, paper_contents, statements.load(), findings=[], with_figures=False)
    body = written.index.read_text().split("<body>")[1]
    assert written.answer.headline == "SqueezeNet matches AlexNet at 64.8× smaller"
    assert body.index(written.answer.headline) < body.index("<table")
    order = [body.index(f'id="{slug}"') for slug in ("claims", "study-reproducibility", "audit", "runs")]
    assert order == sorted(order)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: chromium)")
@pytest.mark.parametrize("width", [500, 1400])
def test_a_browser_shows_every_picture_and_has_nothing_to_say(paper_contents, tmp_path, width):
    index = write(tmp_path / "report", paper_contents, statements.load(), studies=["best", "learning_rate"]).index
    text = index.read_text()
    index.write_text(text.replace("</body>", COUNT + "</body>"))
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}",
               f"--window-size={width},900", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom",
               "--host-resolver-rules=MAP * ~NOTFOUND", index.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    pictures = text.count("<img ")
    assert pictures >= 8
    assert f'data-found="{pictures} of {pictures}, fits"' in done.stdout
