"""Pictures and figures of few pixels: most tests need that they are drawn, not that they are sharp.

At 200 and 300 dots per inch, resampling and compressing pixels takes three fifths of a tiny run.
Everything else about a picture (its parts, texts, sizes in inches, names of files) stays as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hashbackdoor_bench.report.figures import finished
from hashbackdoor_bench.report.pictures import drawing

FULL = {drawing: drawing.DPI, finished: finished.DPI}
COARSE = 40  # dots per inch


@contextmanager
def resolution(dpi: int | None = COARSE) -> Iterator[None]:
    """Inside, what the package draws has so many dots per inch; None: those of the package."""
    with pytest.MonkeyPatch.context() as patch:
        for module, own in FULL.items():
            patch.setattr(module, "DPI", own if dpi is None else dpi)
        yield
