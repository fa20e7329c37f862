"""``bench show record``: the numbers of one record, and its bundle."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hashbackdoor_bench.cli.suite_running import command_of_record
from hashbackdoor_bench.cli.terminal import console, say
from hashbackdoor_bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from hashbackdoor_bench.report.board import Drawn

KINDS = ("png", "pdf")
# of one record; the others compare several
OF_ONE = ("distances", "precision-recall", "codes")
OF_ONE_DEFENDED = (*OF_ONE, "suspicions", "defended-distances")


def show_record(path: Path, bundle: Path | None) -> None:
    """Print the numbers of a record, and write its bundle if a folder is given.

    Raises:
        UserError: the path is no record that can be read, or the folder holds something else.
    """
    from hashbackdoor_bench.cli.result import result_table
    from hashbackdoor_bench.report import collect

    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no file"
        raise UserError(
            f"{path} {what}: give the JSON file of one record, whose path `bench run` prints at "
            "its end, such as runs/fashion-mini/hashnet-48/ciba-s0-827e7c929f.json."
        )
    frame = collect([path]).frame
    (record,) = frame["record"]
    console().print(result_table(record))
    command = shlex.join(command_of_record(record))
    say(f"command   {command}")
    if bundle is None:
        return
    from hashbackdoor_bench.report.board import write_bundle

    try:
        page = write_bundle(path, record, bundle, lambda record: command, _draw(frame))
    except OSError as error:
        raise UserError(f"--bundle {bundle}: {error.strerror}; give another folder.") from error
    say(f"bundle    {page}")


def _draw(frame: "pd.DataFrame") -> "Callable[[Path], list[Drawn]]":
    """What draws the figures of a record; those for which it holds nothing are left out."""

    def draw(folder: Path) -> "list[Drawn]":
        from hashbackdoor_bench.report.board import Drawn
        from hashbackdoor_bench.report.figures import figures

        (record,) = frame["record"]
        drawn = []
        for name in OF_ONE if record.defense is None else OF_ONE_DEFENDED:
            try:
                found = figures(name, frame)
            except UserError as error:
                say(f"note: no figure {name}: {error}", err=True)
                continue
            for one in found:
                files = one.write(folder, KINDS)
                drawn.append(Drawn(files[0].stem, KINDS, " ".join(one.caption)))
        return drawn

    return draw
