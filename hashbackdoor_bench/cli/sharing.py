"""``bench merge``: put results of several machines together."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from hashbackdoor_bench.cli.options import FOLDER, bench, first_of, mode_of, talk
from hashbackdoor_bench.cli.terminal import say


@bench.command("merge")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=FOLDER)
@click.option("--into", type=FOLDER, required=True, help="The merged folder; may hold results.")
@talk
def merge_command(folders: tuple[Path, ...], into: Path, quiet: bool, as_json: bool) -> int:
    """Merge folders of results from several machines; exit code 1 if a record was not taken.

    Records are copied with their pictures, and the index is made again. If two machines have other
    results of one run, both records are kept, and tables count that of the first folder. Nothing
    in the merged folder is overwritten, and whatever is not taken is named.
    """
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.sharing import merge

    with shown(mode_of(quiet, as_json)) as progress:
        found = merge(folders, into, progress)
    code = 1 if found.refused else 0
    if as_json:
        say(json.dumps({"event": "result", **asdict(found)}))
        return code
    for head, sentences in (
        ("refused ", found.refused),
        ("conflict", found.conflicts),
        ("left    ", found.left),
        ("unread  ", found.unread),
    ):
        for sentence in first_of(sentences, "bench merge"):
            say(f"{head}  {sentence}")
    say(
        f"{found.copied} records copied into {into}, {found.known} were there already, "
        f"{len(found.refused) or 'none'} refused, {len(found.conflicts) or 'no'} conflicts, "
        f"{len(found.left) or 'no'} other files left"
    )
    return code
