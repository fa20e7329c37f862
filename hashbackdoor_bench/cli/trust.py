"""``bench reproduce``, ``verify`` and ``submit``: check published results."""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hashbackdoor_bench.cli.options import (
    FILE,
    FOLDER,
    bench,
    device_option,
    first_of,
    mode_of,
    places,
    plugin_option,
    talk,
    threads_option,
)
from hashbackdoor_bench.cli.terminal import say
from hashbackdoor_bench.registry import load_plugin


@bench.command("reproduce")
@click.argument("source", metavar="RECORD|ZIP", type=FILE)
@click.option("--results-dir", type=FOLDER, help="Keep the new record here.")
@click.option("--cache-dir", type=FOLDER, help="Folder of the cache; a temporary one if not given.")
@click.option("--root", type=FOLDER, help="Folder of the images, if not as in the record.")
@click.option("--lists", type=FOLDER, help="Folder of the list files, if not as in the record.")
@click.option("--weights", type=FILE, help="The backbone's weights, if not as in the record.")
@plugin_option
@device_option
@threads_option(otherwise="the record's")
@talk
def reproduce_command(
    source: Path,
    results_dir: Path | None,
    cache_dir: Path | None,
    plugin: tuple[Path, ...],
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
    **where: Path | None,
) -> int:
    """Repeat the run of a record from the start and compare; exit code 1 if scores differ.

    Given a zip of ``bench submit``, the poison is taken from it and only the victims are trained.
    """
    for path in plugin:
        load_plugin(path)
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.records import read_record
    from hashbackdoor_bench.stages import Cache
    from hashbackdoor_bench.trust import TOLERANCE, reproduce, unpack

    submission = unpack(source) if source.suffix == ".zip" else None
    record = submission.record if submission else read_record(source)
    with tempfile.TemporaryDirectory() as fresh, shown(mode_of(quiet, as_json)) as progress:
        found = reproduce(
            record,
            cache=Cache(cache_dir or Path(fresh) / "cache"),
            results=results_dir or Path(fresh) / "results",
            device=device,
            threads=threads,
            progress=progress,
            submission=submission,
            **{name: str(path.absolute()) for name, path in where.items() if path is not None},
        )
    made, code = found.record, 1 if found.differences else 0
    if as_json:
        result = {"reproduced": not code, "exact": found.exact, "inputs": found.inputs}
        differences = [asdict(one) for one in found.differences]
        say(json.dumps({"event": "result", **result, "differences": differences}))
        return code
    say(f"{'':<9}{'recorded':<34}now")
    for name in ("device", "commit"):
        known, now = (str(getattr(one, name)) for one in (record, made))
        say(f"{name:<9}{known:<33.33} {now:.33}")
    for name in ("map", "t_map", "backdoor_gain"):
        was, is_ = (getattr(one.scores.field, name) for one in (record, made))
        say(f"{name:<14}{was!s:<28} {is_}")
    if found.inputs:
        say(f"code, data or weights differ from the record's in: {', '.join(found.inputs)}")
    for one in found.differences:
        say(f"differs  {one.name}: {one.recorded} in the record, {one.found} now")
    rule = "equal to the last bit" if found.exact else f"within {100 * TOLERANCE:g} points"
    if found.differences:
        say(f"not reproduced: {len(found.differences)} figures are not {rule}")
    else:
        say(f"reproduced: {'all figures' if found.exact else 'the scores'} are {rule}")
    if results_dir is not None:
        say(f"record   {found.path}")
    return code


@bench.command("verify")
@click.argument("results", type=FOLDER)
@places
@talk
def verify_command(results: Path, cache_dir: Path, quiet: bool, as_json: bool, **where: Any) -> int:
    """Check a folder of results for consistency; exit code 1 if there is a problem.

    Records are checked against their schema, their keys, their checksums and themselves, and if the
    cache has them, against their codes; the index of a suite, LEADERBOARD.md and the figures are
    checked against the records. A record without codes here is named as not verifiable here, which
    is no problem, but neither does it show that its scores are true.
    """
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.stages import READ_ONLY, open_cache
    from hashbackdoor_bench.trust import verify

    with shown(mode_of(quiet, as_json)) as progress:
        there = cache_dir.is_dir() or os.environ.get(READ_ONLY)
        cache = open_cache(cache_dir) if there else None
        found = verify(results, cache, progress=progress, **where)
    if as_json:
        say(json.dumps({"event": "result", **asdict(found)}))
        return 1 if found.problems else 0
    for problem in found.problems:
        say(problem)
    for line in first_of([f"not verifiable here: {path}" for path in found.not_verifiable]):
        say(line)
    say(
        f"{found.records} records, {found.rescored} scored again from their codes in {cache_dir}, "
        f"{len(found.not_verifiable)} not verifiable here, {found.without_checksum} without a "
        f"checksum, {len(found.problems) or 'no'} problems"
    )
    return 1 if found.problems else 0


@bench.command("submit")
@click.argument("record", type=FILE)
@click.option("--out", type=FILE, required=True, help="The zip to write.")
@plugin_option
@places
def submit_command(
    record: Path, out: Path, plugin: tuple[Path, ...], cache_dir: Path, **where: Any
) -> None:
    """Pack a record and its poison into a zip, from which a maintainer can reproduce the run."""
    for path in plugin:
        load_plugin(path)
    from hashbackdoor_bench.errors import UserError
    from hashbackdoor_bench.records import read_record
    from hashbackdoor_bench.stages import open_cache
    from hashbackdoor_bench.trust import pack

    if out.suffix != ".zip":
        raise UserError(f"--out {out}: give a name that ends in .zip.")
    poisoned = pack(read_record(record), open_cache(cache_dir), out, **where)
    say(f"wrote {out}: {poisoned} poisoned images and the trigger")
