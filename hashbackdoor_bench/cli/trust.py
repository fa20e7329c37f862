"""``bench reproduce``, ``verify`` and ``submit``: check published results."""

import json
import os
import shlex
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
@click.argument("records", metavar="RECORD|FOLDER...", nargs=-1, required=True, type=FILE)
@click.option("--out", type=FILE, help="The zip to write, of one record.")
@click.option(
    "--pr",
    "clone",
    type=FOLDER,
    metavar="CLONE",
    help="Prepare a pull request in this clone of the benchmark, of folders of results.",
)
@click.option("--name", help="Of the submission with --pr; the attack's name if not given.")
@click.option(
    "--push",
    "remote",
    metavar="REMOTE",
    help="Push the branch of --pr there too; nothing leaves this machine if not given.",
)
@plugin_option
@places
def submit_command(
    records: tuple[Path, ...],
    out: Path | None,
    clone: Path | None,
    name: str | None,
    remote: str | None,
    plugin: tuple[Path, ...],
    cache_dir: Path,
    **where: Any,
) -> None:
    """Pack a record and its poison into a zip, from which a maintainer can reproduce the run.

    With --pr, the records and the poison of all runs of some folders become a branch in a clone of
    the benchmark, with the text of a pull request. The clone's files and its present branch stay as
    they are, and the commands that push the branch are printed.
    """
    from hashbackdoor_bench.errors import UserError

    if (out is None) == (clone is None):
        raise UserError("give --out ZIP for one record, or --pr CLONE for folders of results.")
    if clone is None and (name is not None or remote is not None):
        raise UserError("--name and --push belong to --pr: give a clone of the benchmark with it.")
    for path in plugin:
        load_plugin(path)
    from hashbackdoor_bench.cli.console import shown
    from hashbackdoor_bench.records import read_record
    from hashbackdoor_bench.stages import open_cache
    from hashbackdoor_bench.trust import Clone, pack, prepare

    if out is not None:
        if out.suffix != ".zip":
            raise UserError(f"--out {out}: give a name that ends in .zip.")
        if len(records) != 1:
            raise UserError(f"--out holds one record, and {len(records)} are given: give --pr.")
        images = pack(read_record(records[0]), open_cache(cache_dir), out, **where)
        say(f"wrote {out}: {images} poisoned images and the trigger")
        return
    assert clone is not None
    there = Clone(clone)
    with shown(mode_of(quiet=False, as_json=False)) as progress:
        made = prepare(records, open_cache(cache_dir), there, name=name, progress=progress, **where)
    git = shlex.join(["git", "-C", str(there.folder)])
    say(
        *made.text.splitlines(),
        "",
        f"branch  {made.branch} on {made.base} in {there.folder}: {made.records} records, poison "
        f"of {made.zips}, in {made.folder}",
        f"look    {git} show --stat {made.branch}",
    )
    if remote is None:
        say(f"push    {git} push origin {made.branch}")
    else:
        there.push(remote, made.branch)
        say(f"pushed  {made.branch} to {remote}")
    say(f"open    cd {shlex.quote(str(there.folder))} && gh pr create --fill --head {made.branch}")
