"""The leaderboard as a static site: one folder that works from a file, with no external request.

Its pages are the boards of attacks (the first), of victims and of defenses, the ledger, what was
run, one page for each attack, and one for the runs of each row of a board. See `site_files` for
what keeps the words of records from being read as markup.
"""

from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from hashbackdoor_bench.files import remove, writable
from hashbackdoor_bench.report.board import rules, takeaways, wording
from hashbackdoor_bench.report.board.attack_pages import attack_pages
from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.claimed_order import order_tables
from hashbackdoor_bench.report.board.coverage import (
    attack_coverage,
    defense_coverage,
    refusals,
)
from hashbackdoor_bench.report.board.defenses import DefenseBoard
from hashbackdoor_bench.report.board.entries import Entry, ScoredRun
from hashbackdoor_bench.report.board.site_files import (
    GENERATOR,
    CommandOf,
    Files,
    clear,
    copy_run,
    refuse_other_folder,
    slug,
    templates,
    write_page,
)
from hashbackdoor_bench.report.board.table_page import TablePage
from hashbackdoor_bench.report.board.victims import victim_boards
from hashbackdoor_bench.report.collection import Collection

# what a new site replaces; records stay if they are of it too, since thousands take long to write
PARTS = (
    "attacks", "runs", "images", "victims.html", "defenses.html", "ledger.html", "coverage.html",
)  # fmt: skip


def refuse_no_site(folder: Path) -> None:
    """Refuse a folder that `write_site` would refuse, before anything is written.

    Raises:
        UserError: the folder holds something that is no site, or can't be written.
    """
    refuse_other_folder(folder, "--site", GENERATOR)
    writable(folder, "--site")


def write_site(
    found: Sequence[Board],
    collection: Collection,
    folder: Path,
    command_of: CommandOf,
    defenses: Sequence[DefenseBoard] = (),
    notes: Sequence[str] = (),
    ledger: TablePage | None = None,
) -> Path:
    """Write the site; its first page.

    Args:
        found: the boards of attacks, in the order of the page.
        collection: what they are made from; its pictures, refusals and files that were left out
            are shown too.
        folder: of the site; new, empty, or a site made before.
        command_of: the text of the command that makes a record again.
        defenses: the boards of defenses.
        notes: more sentences that stand with those on files left out.
        ledger: what the deviations of released code are worth; None: no page shows it.

    Raises:
        UserError: the folder holds something else.
    """
    clear(folder, "--site", GENERATOR, PARTS)
    attacks = attack_pages(found, collection.frame)
    victims = victim_boards(found)
    files: dict[str, Files] = {}
    for run in _runs(found):
        if run.path not in files:  # controls stand on several boards
            files[run.path] = copy_run(Path(run.path), run.record, folder, command_of)
    for page in attacks:
        if (shown := page.pictures) and shown.path.as_posix() not in files:
            files[shown.path.as_posix()] = copy_run(shown.path, shown.record, folder, command_of)
    _keep_only(folder / "records", {Path(one.record).name for one in files.values()})
    run_pages = _run_pages(found)
    pages = {page.attack: page for page in attacks}

    def runs_page(board: Board, entry: Entry) -> str:
        return run_pages[board_anchor(board), entry.runs[0].path]

    environment = templates(
        wording=wording,
        rules=rules,
        takeaways=takeaways,
        order_tables=order_tables,
        board_anchor=board_anchor,
        runs_page=runs_page,
        files=files,
        generator=GENERATOR,
        sections=[
            ("index.html", "Attacks"),
            *([("victims.html", "Victims")] if victims else []),
            *([("defenses.html", "Defenses")] if defenses else []),
            *([("ledger.html", "Ledger")] if ledger else []),
            ("coverage.html", "What was run"),
        ],
    )
    left_out = [
        *collection.left_out,
        *notes,
        *(text for one in files.values() for text in one.left_out),
    ]
    suites = {board.suite for board in found} | {board.suite for board in defenses}
    first = {
        "index.html": {
            "boards": found,
            "attacks": attacks,
            "pages": pages,
            "knowledge": sorted(
                {wording.knowledge(entry) for board in found for entry in board.entries}
            ),
            "victims": sorted(
                {wording.victim_name(victim, board) for board in found for victim in board.victims}
            ),
        },
        "victims.html": {"boards": victims, "pages": pages} if victims else None,
        "defenses.html": {"boards": defenses} if defenses else None,
        "ledger.html": {"ledger": ledger} if ledger else None,
        "coverage.html": {
            "attacks": [(board, attack_coverage(board, collection.refused)) for board in found],
            "defenses": [
                (board, defense_coverage(board, collection.refused)) for board in defenses
            ],
            "refused": refusals(one for one in collection.refused if one.suite in suites),
            "left_out": left_out,
        },
    }
    for name, values in first.items():
        if values is not None:
            write_page(
                folder / name, environment.get_template(name).render(root="", here=name, **values)
            )
    template = environment.get_template("attack.html")
    for page in attacks:
        write_page(folder / page.page, template.render(root="../", here="", page=page))
    template = environment.get_template("runs.html")
    for board in found:
        for entry in board.entries:
            text = template.render(
                root="../", here="", board=board, entry=entry, page=pages[entry.attack]
            )
            write_page(folder / runs_page(board, entry), text)
    return folder / "index.html"


def board_anchor(board: Board) -> str:
    """The anchor of a board in the first page."""
    return slug(f"{board.suite} {board.title}")


def _runs(found: Iterable[Board]) -> list[ScoredRun]:
    return [run for board in found for entry in board.entries for run in entry.runs]


def _keep_only(folder: Path, names: Container[str]) -> None:
    """Remove everything else from a folder."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name not in names:
            remove(entry)


def _run_pages(found: Iterable[Board]) -> dict[tuple[str, str], str]:
    """The page of each entry, by its board and first record; no record can choose its name."""
    names: dict[tuple[str, str], str] = {}
    stems: dict[str, int] = {}
    for board in found:
        for entry in board.entries:
            stem = slug(f"{board.suite} {board.delivery} {entry.label}")
            taken = stems.get(stem, 0)
            stems[stem] = taken + 1
            name = f"runs/{stem}.{taken}.html" if taken else f"runs/{stem}.html"
            names[board_anchor(board), entry.runs[0].path] = name
    return names
