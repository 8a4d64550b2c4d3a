"""Makes the pictures in docs/images: of MLflow's pages with what `make demo` has left, and of results/.

`make screenshots` calls this.

Needs Chromium (`CHROMIUM`, else the one on the PATH) and the package playwright, which drives it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parent.parent
IMAGES = PROJECT / "docs" / "images"
SIZE = {"width": 1300, "height": 760}


@contextmanager
def shown() -> Iterator[str]:
    """The address of a tracking server over the project's store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///mlflow.db"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            sys.exit("the tracking server did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Writes every picture."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("playwright is missing; install it with: pip install playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is missing; install it, or set CHROMIUM to its path")
    if not (PROJECT / "mlflow.db").is_file():
        sys.exit("there is nothing to show yet; run `make demo` first")
    from repro.tracking import reader

    contents = reader.read(f"sqlite:///{PROJECT}/mlflow.db")
    best = max(contents.runs, key=lambda run: run.metrics["best_val_accuracy"])
    register = ["register", "--study", contents.sweeps[0].plan.studies[0].study]
    subprocess.run([sys.executable, "-m", "repro", *register], cwd=PROJECT, check=True)
    with shown() as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(120_000)
        experiment = f"{address}/#/experiments/{best.experiment_id}"

        def taken(name: str) -> None:
            page.wait_for_timeout(4000)  # what is drawn after the last request
            page.screenshot(path=IMAGES / name)

        page.goto(f"{experiment}/runs?workflowType=machine_learning")
        page.get_by_text("matching run").first.wait_for()
        page.get_by_role("button", name="Close").click()  # the assistant
        page.get_by_role("button", name="Group by").click()
        page.get_by_text("repro.variant", exact=True).last.click()
        page.keyboard.press("Escape")
        taken("mlflow_grouped.png")
        fresh = browser.new_page(viewport=SIZE)  # without the choices made above: the link that a sweep prints
        fresh.goto(f"{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=curves")
        fresh.get_by_text("val_accuracy").first.wait_for(timeout=120_000)
        fresh.get_by_role("button", name="Close").last.click()  # the assistant
        fresh.wait_for_timeout(4000)
        fresh.screenshot(path=IMAGES / "mlflow_charts.png")
        page.goto(f"{experiment}/models?workflowType=machine_learning")
        page.get_by_text("Model name").first.wait_for()
        page.set_viewport_size(SIZE | {"width": 1500})
        page.get_by_role("button", name="Columns").click()
        for column in ("Status", "Logged from", "Source run", "Dataset"):
            page.locator("[class*=tree-list]").get_by_text(column, exact=True).first.click()
        page.keyboard.press("Escape")
        taken("mlflow_models.png")
        page.set_viewport_size(SIZE)
        page.goto(f"{experiment}/runs/{best.run_id}?workflowType=machine_learning")
        page.get_by_text("About this run").first.wait_for()
        page.wait_for_timeout(4000)
        for more in page.get_by_text("Show more", exact=True).all()[:1]:  # of a long description
            more.click()
        taken("mlflow_run.png")
        page.goto((PROJECT / "results" / "index.html").as_uri())
        taken("report.png")
        browser.close()


if __name__ == "__main__":
    main()
