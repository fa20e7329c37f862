"""The commands as functions, for Python and notebooks.

    import hashbackdoor_bench as hb
    done = hb.run(attack="ciba", victim="hashnet", bits=48)
    done.record.scores.field.backdoor_gain
    done.figure("distances")
    hb.read_records("quick").groupby(["victim", "label"])["field.backdoor_gain"].mean()

Progress goes to standard error, and a mistake is a `UserError` of one sentence.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hashbackdoor_bench.cli.console import shown
from hashbackdoor_bench.cli.names import refuse_unknown_names
from hashbackdoor_bench.cli.options import default_cache
from hashbackdoor_bench.cli.result import result_table
from hashbackdoor_bench.cli.terminal import as_html, as_text
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.records import OWN, Record
from hashbackdoor_bench.report import collect
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import Cache
from hashbackdoor_bench.stages import run as run_spec
from hashbackdoor_bench.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

FIELDS = [field.name for field in fields(RunSpec)]


@dataclass(frozen=True)
class Finished:
    """A finished run; a notebook shows it as the table that ``bench run`` prints.

    Attributes:
        record: all that is known of it.
        path: the record's file.
        pictures: files of the pictures that were drawn.
    """

    record: Record
    path: Path
    pictures: tuple[Path, ...]

    def figure(self, name: str, convention: str = "field") -> "Figure | Image":
        """One of the run's pictures, or a figure of `bench figure` of this run alone.

        Args:
            name: ``retrieval``, ``poison``, ``queries``, ``trigger``, … or ``distances``,
                ``codes``, ``precision-recall``, ….
            convention: of the scores in a figure.

        Returns:
            A picture, or a figure of matplotlib; a notebook shows both.

        Raises:
            UserError: there is no such figure, or the run has nothing to show in it.
        """
        from PIL import Image

        from hashbackdoor_bench.report.figures import FIGURES, figures

        drawn = {path.stem: path for path in self.pictures}
        if name in drawn:
            return Image.open(drawn[name])
        if name not in FIGURES:
            raise unknown("figure", name, [*drawn, *FIGURES])
        found = list(figures(name, collect([self.path]).frame, convention))
        sentences = [one for one in found if isinstance(one, str)]
        made = [one.figure for one in found if not isinstance(one, str)]
        if not made:
            raise UserError(" ".join(sentences))
        return made[0]

    def __str__(self) -> str:
        return f"{as_text(result_table(self.record))}record    {visible(str(self.path))}"

    def _repr_html_(self) -> str:
        return as_html(result_table(self.record))


def run(
    *,
    results_dir: Path | str = OWN,
    cache_dir: Path | str | None = None,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
    **given: Any,
) -> Finished:
    """Train, attack, defend and score one pair of attack and victim, as ``bench run`` does.

    Finished stages are taken from the cache, so the same call continues an interrupted one.

    Args:
        results_dir: folder of the records.
        cache_dir: folder of the stages' artifacts; ``bench run``'s if None.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: torch's threads; None: as many as it takes. Results on a CPU depend on it.
        quiet: show no progress.
        given: the fields of `RunSpec`, which are the options of ``bench run``: ``attack``,
            ``victim``, ``bits``, ``defense``, ``target``, ``seed``, …. ``attack_settings``,
            ``victim_settings`` and ``defense_settings`` may be dicts.

    Raises:
        UserError: a mistake in what is given.
    """
    from hashbackdoor_bench.report.pictures import draw_missing

    for name, value in given.items():
        if name not in FIELDS:
            raise unknown("option", name, FIELDS)
        if isinstance(value, Mapping):
            given[name] = tuple(value.items())
        elif isinstance(value, Path):
            given[name] = str(value.absolute())
    spec = RunSpec(**given)
    refuse_unknown_names(spec)
    with shown("quiet" if quiet else "lines") as progress:
        record, path, stages = run_spec(
            spec,
            cache=Cache(Path(cache_dir) if cache_dir else default_cache()),
            results=Path(results_dir),
            device=device,
            threads=threads,
            progress=progress,
            draw=draw_missing,
        )
    return Finished(record, path, tuple(stages.pictures))


def read_records(*places: Path | str) -> pd.DataFrame:
    """Records as a table with a row for each, see `report.collection.Collection`.

    Args:
        places: records, folders of them, and names of suites.

    Raises:
        UserError: there is no such place, or no record in it that can be read.

    Warns:
        UserWarning: a file is left out, with the reason.
    """
    found = collect([Path(place) for place in places or (OWN,)])
    for sentence in found.left_out:
        warnings.warn(sentence, stacklevel=2)
    return found.frame
