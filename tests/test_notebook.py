"""The notebook of the documentation: it runs, and its page shows all of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from doc_pages import DOCS

NOTEBOOK = DOCS / "notebook.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return found


def kinds(cell: Any) -> list[list[str]]:
    """What each output of a cell can be shown as; an empty list for what was printed."""
    return [sorted(output.get("data", {})) for output in cell["outputs"]]


def test_the_page_of_the_notebook_shows_every_cell_and_every_output():
    from notebook import page

    text, pictures = page()
    shown = [output for cell in cells() for output in cell.get("outputs", ())]
    for cell in cells():
        assert "".join(cell["source"]) in text
    assert text.count("```python") == sum(cell["cell_type"] == "code" for cell in cells())
    assert len(pictures) == sum("image/png" in one["data"] for one in shown) == 2
    assert all(text.count(f"]({name})") == 1 for name in pictures)
    assert text.count('class="output scroll"') == sum("text/html" in one["data"] for one in shown)
    assert "backdoor gain" in text
    assert "more gain than (paired)" in text


def test_the_notebook_is_kept_as_it_was_executed_from_the_top():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"execute_result"}
    text = "".join("".join(cell["source"]) for cell in code)
    for part in ("hb.run(", ".figure(", "hb.read_records(", "hb.compare("):
        assert part in text
    assert "/tmp/" not in NOTEBOOK.read_text("utf-8")


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs_and_shows_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason='the notebook needs pip install -e ".[docs]"')
    from notebook import executed

    monkeypatch.chdir(tmp_path)
    now = executed().cells
    assert [cell["source"] for cell in now] == ["".join(cell["source"]) for cell in cells()]
    for before, after in zip(cells(), now, strict=True):
        if before["cell_type"] == "code":
            assert kinds(after) == kinds(before)
    assert not list(tmp_path.iterdir())
