"""One record as a folder that opens in a browser without a server, to be sent or archived.

Everything is inside: the record, its numbers with what each says, pictures, figures, the attack's
formula and threat model, the command that makes it again, and by what it was computed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hashbackdoor_bench.records import CONVENTIONS, Record
from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.report.board import wording
from hashbackdoor_bench.report.board.attack_pages import method_of
from hashbackdoor_bench.report.board.site_files import (
    CommandOf,
    clear,
    copy_run,
    templates,
    write_page,
)
from hashbackdoor_bench.report.result_rows import (
    HEADLINES,
    result_caption,
    result_rows,
    result_title,
)
from hashbackdoor_bench.report.threat_words import threat_words
from hashbackdoor_bench.text import counted

GENERATOR = "hashbackdoor_bench bundle"
FIGURES = "figures"  # folder of them in the bundle
PARTS = ("records", "images", FIGURES)
SCORES = {
    "map": "MAP",
    "map_clean_victim": "MAP, clean victim",
    "t_map": "t-MAP",
    "t_map_clean_victim": "t-MAP, clean victim",
    "t_map_untriggered": "t-MAP, no trigger",
    "delta_map": "delta MAP",
    "backdoor_gain": "backdoor gain",
}


@dataclass(frozen=True)
class Drawn:
    """A figure of the record.

    Attributes:
        name: of its files in the folder of figures, without the ending.
        kinds: their endings, such as ``png``.
        caption: what it shows.
    """

    name: str
    kinds: tuple[str, ...]
    caption: str


def write_bundle(
    path: Path,
    record: Record,
    folder: Path,
    command_of: CommandOf,
    draw: Callable[[Path], Sequence[Drawn]],
) -> Path:
    """Write the folder; its page.

    Args:
        path: of the record's file, beside which its pictures are.
        record: what the file holds.
        folder: new, empty, or a bundle made before.
        command_of: the text of the command that makes a record again.
        draw: draws the figures into a folder.

    Raises:
        UserError: the folder holds something else.
    """
    clear(folder, "--bundle", GENERATOR, PARTS)
    files = copy_run(path, record, folder, command_of)
    figures = draw(folder / FIGURES)
    environment = templates(wording=wording, generator=GENERATOR, sections=[])
    page = folder / "index.html"
    text = environment.get_template("bundle.html").render(
        root="",
        here="",
        title=result_title(record),
        caption=result_caption(record),
        rows=list(result_rows(record)),
        headlines=HEADLINES,
        record=record,
        files=files,
        folder_of_figures=FIGURES,
        figures=figures,
        conventions=CONVENTIONS,
        scores=SCORES,
        attack=ATTACKS.published(record.spec.attack),
        method=method_of(record.spec.attack),
        threat=list(threat_words(record.threat, poisons=bool(record.threat.poisoned))),
        provenance=list(_provenance(record)),
    )
    write_page(page, text)
    return page


def _provenance(record: Record) -> Iterator[tuple[str, str]]:
    """By what a record was computed, as names with what is said of each."""
    yield "Key", record.key
    yield "Checksum", record.checksum or "none: the record is of older code"
    if record.commit is None:
        yield "Code", "not from a git checkout"
    else:
        yield "Code", f"commit {record.commit}{', with changes' if record.dirty else ''}"
    yield "Device", record.device
    if (used := record.numerics) is not None:
        threads = "" if used.threads is None else f", {counted(used.threads, 'thread')}"
        yield "Numerics", f"{used.device}{threads}, {used.precision}, torch {used.torch}"
    yield "Versions", ", ".join(f"{name} {value}" for name, value in record.versions.items())
    data = record.protocol
    yield (
        "Data",
        f"{data.name}: {data.train} training images, {data.query} queries, {data.database} in the "
        f"database, {data.classes} classes, lists {data.sha256}, pixels {data.pixels}",
    )
    for note in data.notes:
        yield "Note on the data", note
    yield "Time", f"{sum(record.seconds.values()):.0f} s over all stages"
    for stage, seconds in record.seconds.items():
        yield f"Time of {stage}", f"{seconds:.1f} s"
    for stage, key in record.artifacts.items():
        yield f"Artifact of {stage}", key
