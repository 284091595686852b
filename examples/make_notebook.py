"""Makes quickstart.ipynb of quickstart.py: cells begin at lines that start with `# %%`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def notebook(script: str) -> dict[str, Any]:
    """The notebook of a script, without outputs."""
    cells: list[dict[str, Any]] = []
    for number, block in enumerate(script.split("# %%")[1:]):
        head, _, body = block.partition("\n")
        lines = body.strip("\n").split("\n")
        markdown = "[markdown]" in head
        if markdown:
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        source = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
        cell: dict[str, Any] = {"cell_type": "markdown" if markdown else "code", "id": f"cell-{number}", "metadata": {}}
        cell |= {"source": source} if markdown else {"execution_count": None, "outputs": [], "source": source}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    text = json.dumps(notebook((HERE / "quickstart.py").read_text(encoding="utf-8")), indent=1, ensure_ascii=False)
    (HERE / "quickstart.ipynb").write_text(text + "\n", encoding="utf-8")
