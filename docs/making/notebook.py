"""The page of docs/notebook.ipynb; `python docs/making/notebook.py` makes its outputs again.

The page is made from the JSON of the notebook alone, so the site needs no package for notebooks.
"""

import json
import os
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SOURCE = Path(__file__).parents[1] / "notebook.ipynb"
PAGE, PICTURES = "notebook.md", "notebook"
SHOWN = ("image/png", "text/html", "text/plain")  # the first that an output has is shown
OF_PANDAS = re.compile(r'<style scoped>.*?</style>| border="1" class="dataframe"', re.DOTALL)


def page() -> tuple[str, dict[str, bytes]]:
    """The notebook as a page, and its pictures by their paths in the site."""
    pictures: dict[str, bytes] = {}
    parts = [part for cell in json.loads(SOURCE.read_text("utf-8"))["cells"]
             for part in _parts(cell, pictures)]  # fmt: skip
    parts.append(f"This page is [a notebook]({SOURCE.name}) that runs in Jupyter.")
    return "\n\n".join(parts) + "\n", pictures


def _parts(cell: dict[str, Any], pictures: dict[str, bytes]) -> Iterator[str]:
    text = _text(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
        return
    yield f"```python\n{text}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", "")})
        kind = next(kind for kind in SHOWN if kind in data)
        content = _text(data[kind])
        if kind == "image/png":
            name = f"{PICTURES}/{len(pictures)}.png"
            pictures[name] = b64decode(content)
            yield f"![Output of the cell above]({name})"
        elif kind == "text/html":
            yield f'<div class="output scroll">{OF_PANDAS.sub("", content).strip()}</div>'
        else:
            yield f"```text\n{content.strip()}\n```"


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def executed() -> Any:
    """The notebook with the outputs that its cells have now, without messages on stderr.

    It runs in an empty cache, whatever is in yours.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(SOURCE, as_version=4)
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "HASHBACKDOOR_CACHE": folder}
        client = NotebookClient(book, timeout=500, kernel_name="python3")
        client.execute(env=environment, cwd=folder)
    for cell in book.cells:
        cell.metadata.clear()  # which has the times of its execution
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return book


def _smaller(picture: str) -> str:
    """A PNG with 256 colours, in base 64 as it is given."""
    from PIL import Image

    file = BytesIO()
    with Image.open(BytesIO(b64decode(picture))) as found:
        found.convert("RGB").quantize(256).save(file, "png", optimize=True)
    return b64encode(file.getvalue()).decode()


def main() -> int:
    """Write the notebook with new outputs."""
    import nbformat

    book = executed()
    for cell in book.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
    nbformat.write(book, SOURCE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
