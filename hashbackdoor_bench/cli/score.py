"""``bench score``: compute a record's scores again from its codes."""

from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench.cli.options import FILE, bench, places
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.errors import UserError


@bench.command("score")
@click.argument("record", type=FILE)
@places
def score_command(record: Path, cache_dir: Path, **where: Any) -> None:
    """Compute a record's scores again from its codes in the cache, and compare."""
    from hashbackdoor_bench.records import CONVENTION_FIELDS, CONVENTIONS, read_record
    from hashbackdoor_bench.stages import open_cache
    from hashbackdoor_bench.trust import rescore

    stored = read_record(record)
    scores, _ = rescore(stored, open_cache(cache_dir), **where)
    for convention in CONVENTIONS:
        for name in CONVENTION_FIELDS:
            value, known = (getattr(one[convention], name) for one in (scores, stored.scores))
            if value is not None:
                same = "" if value == known else f"  the record says {known}"
                say(f"{convention:<9}{name:<22}{value:8.4f}{same}")
    if scores != stored.scores:
        raise UserError(f"{record}: its scores don't follow from its codes; run its command again.")
    say("equal to the record")
