"""``bench figure``: the figures of a paper, from records."""

from pathlib import Path

import click

from hashbackdoor_bench.cli.options import (
    FOLDER,
    bench,
    published_or_own,
    records_options,
    records_read,
)
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError, unknown

KINDS = ("pdf", "png")


@bench.command("figure")
@click.argument("arguments", metavar="NAME SUITE|RECORDS...", nargs=-1)
@click.option(
    "--all", "everything", is_flag=True, help="Draw all figures of a folder of results, see above."
)
@click.option(
    "--out",
    type=FOLDER,
    show_default="figures; with --all RESULTS_DIR/figures",
    help="Folder of the files.",
)
@click.option(
    "--format", "formats", default="pdf,png", show_default=True, help="pdf, png, or both."
)
@click.option(
    "--figure-size",
    "size",
    metavar="WIDTH[xHEIGHT]",
    help="Size in mm, cm or in, as in 84mm or 174mmx90mm; letters keep theirs.",
)
@records_options
def figure_command(
    arguments: tuple[str, ...],
    everything: bool,
    out: Path | None,
    formats: str,
    size: str | None,
    convention: str,
    conditions: tuple[str, ...],
) -> None:
    """Draw a figure of records, as PDF and PNG, with its caption beside it.

    \b
    places            the boards of the leaderboard, with ties
    area              backdoor gain over the budget, for each board
    targets           backdoor gain by target, for each board
    gains             backdoor gain of every attack on every victim
    takes             the same by victim, where there are more victims than attacks
    visibility        backdoor gain against PSNR
    transfer          backdoor gain, surrogates x victims
    by-target         t-MAP, attacks x targets
    bits, budget, size, epsilon, dispersion
                      t-MAP, gain and MAP against that setting
    attack.NAME, victim.NAME, epochs, ...
                      the same against any number in which runs differ
    distances         Hamming distance of queries to the target's anchor
    precision-recall  over the Hamming radius
    codes             codes on a plane
    defense-trade-off t-MAP against MAP behind defenses, over their strengths
    detection         AUROC of filters against the poison's share of its class
    suspicions        histograms of what filters and tests call suspicious
    defended-distances
                      distances to the anchor without and with a defense

    Takes records, folders of them, and names of suites, whose records are in runs/SUITE, or else in
    results/SUITE. `bench figure --all [FOLDER]` draws every figure for which the folder (results,
    or runs where there is no results) has records.
    """  # noqa: D301 (\b keeps click from filling the lines)
    kinds = tuple(dict.fromkeys(kind.strip() for kind in formats.split(",")))
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("--format", kind, KINDS)
    from hashbackdoor_bench.report.figures import (
        DEFENDED,
        FIGURES,
        all_figures,
        figure_named,
        figures,
        resize,
        size_of,
    )

    asked = None if size is None else size_of(size)

    if everything and asked:
        raise UserError(
            "--all makes the published figures again, which have their own size: name a figure for "
            "--figure-size, as in `bench figure gains quick --figure-size 84mm`."
        )
    if everything and len(arguments) > 1:
        raise UserError(f"--all takes one folder of results, not {len(arguments)} arguments.")
    if not everything and arguments:
        figure_named(arguments[0])
    if not everything and not arguments:
        raise UserError(f"no figure is named: choose one of {', '.join(FIGURES)}, or give --all.")
    if not everything and len(arguments) == 1:
        raise UserError(
            f"figure {arguments[0]} of what? Give records, a folder of them or a suite's name, as "
            f"in `bench figure {arguments[0]} quick`."
        )
    if everything:
        places = [Path(place) for place in arguments] or [published_or_own()]
    else:
        places = [Path(place) for place in arguments[1:]]
    folder = out or (places[0] / "figures" if everything else Path("figures"))
    name = arguments[0] if arguments else ""
    frame = records_read(places, conditions, defended=everything or name in DEFENDED).frame
    drawn = all_figures(frame, convention) if everything else figures(name, frame, convention)
    for made in drawn:
        if isinstance(made, str):
            say(f"note: {made}", err=True)
            continue
        if asked:
            resize(made, asked)
        try:
            files = made.write(folder, kinds)
        except OSError as error:
            raise UserError(f"--out {folder}: {error.strerror}; give a folder to write.") from error
        for file in files:
            say(f"figure  {file}")
