"""The page: one file that needs nothing else, in a real browser without an error, every picture shown."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from repro.records import Architecture, Layer
from repro.reporting import claims
from repro.reporting.frame import Answer, Beside
from repro.reporting.page import Section, page
from repro.reporting.pictures import Picture
from repro.reporting.report import write
from repro.reporting.sheets import Column, Sheet

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NASTY = "\"><script>alert(1)</script><img src=x onerror=alert(1)> & 'quoted'"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><defs></defs><rect width="8" height="8"/></svg>'
COUNT = """<script>addEventListener('load', () => {
  const shown = [...document.querySelectorAll('.picture svg')].filter(one => one.getBoundingClientRect().width > 0).length;
  const head = document.querySelector('#table-runs thead th:nth-child(6)'), first = () =>
    parseFloat(document.querySelector('#table-runs tbody tr td:nth-child(6)').textContent);
  head.click(); const low = first(); head.click(); const high = first();
  document.body.dataset.found = `${shown} shown, ${low < high ? 'sorted' : 'not sorted'}, `
    + (document.documentElement.scrollWidth <= innerWidth ? 'fits' : 'too wide');
})</script>"""


def small(text):
    frame = pd.DataFrame({"a": [text], "b": [text], "url": [text]})
    columns = (
        Column("a", text, lambda row: row["a"]),
        Column("b", text, lambda row: row["b"], text, "verdict", text, "url"),
    )
    sheet = Sheet("s", text, text, columns, frame, (text,))
    picture = Picture(text, text, text, print, (), files={"svg": SVG})
    sample = Picture("sample", text, text, print, (), files={"png": b"png"})
    section = Section(text, text, text, "http://mlflow", (picture,), (sheet,), (text,), (picture, sample), (picture,))
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


def test_the_page_needs_no_network_and_one_short_script(paper_contents, tmp_path):
    text = write(
        tmp_path, paper_contents, claims.load(), studies=["best"], ui_url="http://mlflow:5000"
    ).index.read_text()
    tags = Reader(text).tags
    assert not {"iframe", "object", "embed"} & {tag for tag, _ in tags}
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script.count("\n") <= 30
    fetched = [
        value for _, attributes in tags for name, value in attributes.items() if name in {"src", "srcset", "data"}
    ]
    fetched += [
        value for tag, attributes in tags if tag == "image" for name, value in attributes.items() if "href" in name
    ]
    fetched += [attributes["href"] for tag, attributes in tags if tag == "link"]
    assert fetched
    assert all(value.startswith("data:") for value in fetched)
    assert not re.search(r"@import|url\((?!#)", text)
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    pictured = [attributes for tag, attributes in tags if attributes.get("role") == "img"]
    assert len(pictured) >= 3
    assert all(attributes["aria-label"] for attributes in pictured)
    assert any("/#/compare-runs?runs=" in attributes.get("href", "") for tag, attributes in tags if tag == "a")
    linked = [attributes["href"] for tag, attributes in tags if tag == "a"]
    runs = [href for href in linked if href.startswith("http://mlflow:5000/#/experiments/1/runs/")]
    assert len(runs) == 6  # three of the row and three of its base
    named = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {href[1:] for href in linked if href.startswith("#")} <= named


def test_answer_then_every_study_in_one_plot_then_tables_claims_audit_and_runs(paper_contents, tmp_path):
    written = write(tmp_path, paper_contents, claims.load(), with_figures=True, studies=["reproducibility", "residual"])
    body = written.index.read_text().split("<body>")[1]
    parts = ["<h1>", "overview", "study-reproducibility", "table-reproducibility", "claims", "audit", "runs"]
    order = [body.index(part if part.startswith("<") else f'id="{part}"') for part in parts]
    assert order == sorted(order)
    assert body.index('id="figure-reproducibility-forest"') < body.index('id="table-reproducibility"')
    undecided = body.count("undecided</summary>")
    assert undecided == 1, "they are folded, a line each"
    first = body[: body.index('id="study-residual"')]
    (told,) = re.findall(r"How the verdicts were reached</summary>(.*?)</details>", first, re.DOTALL)
    assert "<li>SqueezeNet, batchnorm, validation: " in told
    assert "one more run is expected to reach" in told
    assert "conservative: no network of this family has two runs with predictions" in told


def test_the_page_of_the_demo_has_at_most_400_kilobytes(store, tmp_path):
    """Seven networks on digits with every figure in the page: curves, drawings with eight Fire modules, confusion."""
    store.sweep("demo", seeds=(0,), epochs=8, overrides={"data.dataset": "digits", "training.epochs": 8})
    images, counts = np.full((100, 32, 32, 3), 99, np.uint8), np.arange(1, 101).reshape(10, 10).tolist()
    layers = [Layer("conv1", "conv", "conv1", (3, 32, 32), (96, 13, 13), 7, 2, 0, 14208, 2384928)]
    for module in (f"fire{number}" for number in range(2, 10)):
        parts = [("squeeze", "conv", 1), ("small", "conv", 1), ("large", "conv", 3), ("bn", "batch_norm", None)]
        layers += [Layer(f"{module}.{part}", kind, module, (128, 6, 6), (64, 6, 6), kernel, 1, 0, 10, 100)
                   for part, kind, kernel in parts]  # fmt: skip
    drawn = Architecture("squeezenet", (3, 32, 32), tuple(layers), (), 740554, 9148448)
    beside = Beside(lambda _: drawn, lambda _: counts, samples=(images, [str(n // 10) for n in range(100)]))
    size = write(tmp_path, store.contents(), claims.load(), beside=beside).index.stat().st_size
    assert 150_000 < size < 350_000  # and samples that compress less


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: chromium)")
@pytest.mark.parametrize("width", [400, 800, 1300])
def test_a_browser_shows_every_picture_and_has_nothing_to_say(paper_contents, tmp_path, width):
    index = write(tmp_path / "report", paper_contents, claims.load(), studies=["best", "learning_rate"]).index
    text = index.read_text()
    index.write_text(text.replace("</body>", COUNT + "</body>"))
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}",
               f"--window-size={width},900", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom",
               "--host-resolver-rules=MAP * ~NOTFOUND", index.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    shown = re.sub("<details>.*?</details>", "", text, flags=re.DOTALL).count('class="picture"')
    assert int(re.search(r'data-found="(\d+) shown, sorted, fits"', done.stdout)[1]) >= shown >= 3
