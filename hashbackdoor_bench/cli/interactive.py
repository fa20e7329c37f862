"""The commands as functions, for Python and notebooks.

    import hashbackdoor_bench as hb
    done = hb.run(attack="ciba", victim="hashnet", bits=48)
    done.record.scores.field.backdoor_gain
    done.figure("distances")
    hb.read_records("quick").groupby(["victim", "label"])["field.backdoor_gain"].mean()
    hb.compare("blended_clean", suite="quick").differences

Progress goes to standard error, and a mistake is a `UserError` of one sentence.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hashbackdoor_bench.cli.comparing import Comparison, compared
from hashbackdoor_bench.cli.console import shown
from hashbackdoor_bench.cli.given import (
    arguments_given,
    paths_given,
    run_given,
    settings_given,
)
from hashbackdoor_bench.cli.options import MOST_THREADS, default_cache
from hashbackdoor_bench.cli.result import result_table
from hashbackdoor_bench.cli.terminal import as_html, as_text
from hashbackdoor_bench.cli.training_log import training_log
from hashbackdoor_bench.errors import UserError, check, unknown
from hashbackdoor_bench.records import OWN, Record
from hashbackdoor_bench.report import collect
from hashbackdoor_bench.stages import open_cache
from hashbackdoor_bench.stages import run as run_spec
from hashbackdoor_bench.suites import Failure, describe
from hashbackdoor_bench.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def _png(figure: "Figure") -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


@dataclass(frozen=True, repr=False)
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
            with Image.open(drawn[name]) as picture:
                return picture.copy()
        if name not in FIGURES:
            raise unknown("figure", name, [*drawn, *FIGURES])
        found = list(figures(name, collect([self.path]).frame, convention))
        sentences = [one for one in found if isinstance(one, str)]
        made = [one.figure for one in found if not isinstance(one, str)]
        if not made:
            raise UserError(" ".join(sentences))
        vars(made[0])["_repr_png_"] = partial(_png, made[0])  # by itself a notebook shows pyplot's
        return made[0]

    def __str__(self) -> str:
        return f"{as_text(result_table(self.record))}record    {visible(str(self.path))}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(result_table(self.record))


def run(
    *,
    results_dir: Path | str = OWN,
    cache_dir: Path | str | None = None,
    device: str = "auto",
    threads: int | None = None,
    log_dir: Path | str | None = None,
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
        log_dir: folder of a log of every training, for TensorBoard; None: there is none.
        quiet: show no progress.
        given: the fields of `RunSpec`, which are the options of ``bench run``: ``attack``,
            ``victim``, ``bits``, ``defense``, ``target``, ``seed``, …. ``attack_settings``,
            ``victim_settings`` and ``defense_settings`` are dicts.

    Raises:
        UserError: a mistake in what is given.
    """
    from hashbackdoor_bench.report.pictures import draw_missing

    spec = run_given(given)
    read = arguments_given(
        run,
        results_dir=results_dir,
        cache_dir=cache_dir,
        device=device,
        threads=threads,
        log_dir=log_dir,
        quiet=quiet,
    )
    if threads is not None:
        check("threads", threads, 1, MOST_THREADS)
    with (
        training_log(read["log_dir"], read["results_dir"]) as log,
        shown("quiet" if quiet else "lines") as progress,
    ):
        record, path, stages = run_spec(
            spec,
            cache=open_cache(read["cache_dir"] or default_cache()),
            results=read["results_dir"],
            device=device,
            threads=threads,
            progress=progress,
            log=log,
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


def compare(
    attack: str,
    *,
    suite: Path | str = "quick",
    attack_settings: Mapping[str, object] | None = None,
    against: Path | str | Sequence[Path | str] = (),
    plugin: Path | str | Sequence[Path | str] = (),
    results_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
    device: str = "auto",
    threads: int = 1,
    jobs: int | None = None,
    until: float | None = None,
    minutes: float | None = None,
    log_dir: Path | str | None = None,
    quiet: bool = False,
) -> Comparison:
    """Run an attack on the victims and seeds of a suite, and rank it, as ``bench compare`` does.

    Runs that have a record are not repeated.

    Args:
        attack: its name; ``plugin`` is the file of an attack of yours.
        suite: a name of ``bench suite list``, or a TOML file.
        attack_settings: hyper-parameters of the attack.
        against: records of the suite's attacks; those of the suite's name if there are none.
        plugin: Python files with methods of yours.
        results_dir: folder of the attack's records; ``bench compare``'s if None.
        cache_dir: folder of the stages' artifacts; ``bench compare``'s if None.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: threads of each worker. Results on a CPU depend on it.
        jobs: number of worker processes; None: as many as there is room for.
        until: stop as soon as every other attack with a place is told apart, or differs by less
            than so many points of percent; None: run the whole suite.
        minutes: with ``until``, begin no further part of the suite that would end later.
        log_dir: folder of a log of every training, for TensorBoard; None: there is none.
        quiet: show no progress.

    Raises:
        UserError: a mistake in what is given, or no run of the attack worked.

    Warns:
        UserWarning: a run failed, or a record is left out, with the reason.
    """
    read = arguments_given(
        compare,
        attack=attack,
        suite=suite,
        results_dir=results_dir,
        cache_dir=cache_dir,
        device=device,
        threads=threads,
        jobs=jobs,
        until=until,
        minutes=minutes,
        log_dir=log_dir,
        quiet=quiet,
    )
    check("threads", threads, 1, MOST_THREADS)
    if jobs is not None:
        check("jobs", jobs, 1)
    if until is not None and not 0 < until <= 100:
        raise UserError(f"until is {until:g}: it must be more than 0 and at most 100 points.")
    if minutes is not None and not minutes > 0:
        raise UserError(f"minutes is {minutes:g}: it must be more than 0.")
    return compared(
        attack,
        suite=str(read["suite"]),
        settings=dict(settings_given("attack_settings", attack_settings or {})),
        against=paths_given("against", against),
        results=read["results_dir"],
        cache_dir=read["cache_dir"] or default_cache(),
        device=device,
        threads=threads,
        jobs=jobs,
        plugin=paths_given("plugin", plugin),
        until=read["until"],
        minutes=read["minutes"],
        log_dir=read["log_dir"],
        mode="quiet" if quiet else "lines",
        note=_warn,
        tell=_warn_of,
    )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=4)  # where `compare` is called


def _warn_of(failures: Sequence[Failure], folder: Path) -> None:
    for one in failures:
        sentence = f"{describe(one.run)} failed: {one.stage}: {one.message}"
        warnings.warn(sentence, stacklevel=4)
