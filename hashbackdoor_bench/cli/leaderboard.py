"""``bench leaderboard``: rank the attacks, from the records."""

import shlex
from pathlib import Path

import click

from hashbackdoor_bench.cli.options import FILE, FOLDER, bench, first_of, published_or_own
from hashbackdoor_bench.cli.suite_running import command_of_record
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import real, whole
from hashbackdoor_bench.memory import no_collection
from hashbackdoor_bench.records import OWN


@bench.command("leaderboard")
@click.argument("results", nargs=-1, type=FILE)
@click.option(
    "--suite",
    "suites",
    multiple=True,
    show_default="standard and standard_frozen in the table, or else quick; on the page all",
    help="A suite to rank; give the option several times for several suites.",
)
@click.option("--site", type=FOLDER, help="Write a static site into this folder too.")
@click.option(
    "--papers", type=FILE, help="Write what papers print beside our records to this CSV file too."
)
@click.option(
    "--out",
    type=FILE,
    show_default="LEADERBOARD.md in results if nothing is given, else in runs",
    help="The table as Markdown.",
)
@no_collection()
def leaderboard_command(
    results: tuple[Path, ...],
    suites: tuple[str, ...],
    site: Path | None,
    papers: Path | None,
    out: Path | None,
) -> None:
    """Rank the attacks and defenses of a suite by the rules of results/RULES.md.

    RESULTS are records, folders of them, or names of suites. If nothing is given, it is the folder
    results, or runs where there is no results.
    """
    from hashbackdoor_bench.report import collect, refuse_kept, undefended
    from hashbackdoor_bench.report.board import boards, defense_boards, first_suites
    from hashbackdoor_bench.report.tables import leaderboard_text

    whole_folder = published_or_own()
    out = out or (OWN if results else whole_folder) / "LEADERBOARD.md"
    refuse_kept(out, "--out")
    if papers is not None:
        refuse_kept(papers, "--papers")
        if real(papers) == real(out):
            raise UserError(f"--papers {papers}: the table is written there: give another file.")
    collection = collect(results or (whole_folder,))
    for sentence in first_of(collection.left_out):
        say(f"note: {sentence}", err=True)
    plain = undefended(collection.frame)
    ranked = tuple(dict.fromkeys(suites)) or first_suites(set(plain["suite"].dropna()))
    # a suite may have none but defended runs, which are on the boards of defenses alone
    defended_alone = set(collection.frame["suite"]) - set(plain["suite"])
    found = boards(plain, [suite for suite in ranked if suite not in defended_alone])
    defenses = defense_boards(collection.frame, ranked, collection.refused)
    text, printed, ledger = leaderboard_text(found, defenses), "", None
    if papers is not None:
        from hashbackdoor_bench.report.tables import beside_papers

        printed = beside_papers(collection.frame)
    if site is not None:
        from hashbackdoor_bench.report.board import all_boards, refuse_no_site, write_site
        from hashbackdoor_bench.report.tables import ledger_page

        of_ledger = plain[plain["suite"] == "ledger"]
        ledger = None if of_ledger.empty else ledger_page(of_ledger)
        refuse_no_site(site)
    # nothing is written before everything that may be refused was looked at
    _write(out, "--out", text)
    say(f"table  {out}")
    if papers is not None:
        _write(papers, "--papers", printed)
        say(f"papers {papers}")
    if site is not None:
        notes: tuple[str, ...] = ()
        if not suites:
            found, defenses, notes = all_boards(collection, found, defenses)
        try:
            index = write_site(
                found,
                collection,
                site,
                lambda record: shlex.join(command_of_record(record)),
                defenses,
                notes,
                ledger,
            )
        except OSError as error:
            raise UserError(f"--site {site}: {error.strerror}; give another folder.") from error
        say(f"page   {index}")


def _write(path: Path, option: str, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as fresh:
            fresh.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}; give a file to write.") from error
