"""The examples run as they are, and the notebook is the script."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def test_the_notebook_is_the_script() -> None:
    make = runpy.run_path(str(EXAMPLES / "make_notebook.py"))
    script = (EXAMPLES / "quickstart.py").read_text(encoding="utf-8")
    stored = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert stored == make["notebook"](script), "python examples/make_notebook.py"


def test_the_script_runs() -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(EXAMPLES / "quickstart.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "total_trades" in done.stdout and "27 rows in quickstart-python-" in done.stdout


@pytest.mark.extras
def test_the_notebook_runs(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # The packages of the kernel are not ours to judge.
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": "."}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pages = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("<table>" in page and "window_length" in page for page in pages), "the leaderboard shows itself"
