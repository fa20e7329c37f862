"""A pull request with a submission: a branch in a clone, and the text.

    submissions/NAME/records/DATASET/VICTIM-BITS/RUN.json   and index.csv
    submissions/NAME/poison/RUN.zip                         see `submission`
    submissions/NAME/ATTACK.py                              unless it is part of the project

The message of the branch's one commit is the text, so that ``gh pr create --fill`` takes it.
Nothing leaves the machine unless `Clone.push` is called.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hashbackdoor_bench import report
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import Record, read_record
from hashbackdoor_bench.registry import ATTACKS, VICTIMS
from hashbackdoor_bench.report import for_markdown, percent
from hashbackdoor_bench.sharing import merge
from hashbackdoor_bench.stages import Cache
from hashbackdoor_bench.text import counted
from hashbackdoor_bench.trust.git_branch import Clone
from hashbackdoor_bench.trust.submission import pack

FOLDER = "submissions"
RULES = "results/RULES.md"  # a file that every clone of the benchmark has
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
LARGEST = 100_000_000  # bytes of a file that GitHub takes
ROWS = 200  # of the table in the text


@dataclass(frozen=True)
class Prepared:
    """A branch that can be pushed.

    Attributes:
        branch: its name.
        base: the revision before it.
        commit: the hash of its commit.
        folder: the folder in the repository that it adds.
        records: number of records.
        zips: number of records whose poison is packed.
        text: title, empty line and text of the pull request.
    """

    branch: str
    base: str
    commit: str
    folder: str
    records: int
    zips: int
    text: str


def prepare(
    results: Sequence[Path],
    cache: Cache,
    clone: Clone,
    *,
    name: str | None = None,
    progress: Progress = silent,
    **where: Any,
) -> Prepared:
    """Make a branch with records, their poison and the attack's file.

    Args:
        results: folders of results.
        cache: the cache with the backdoors of their records.
        clone: a clone of the benchmark.
        name: of the submission; None: that of the attack.
        progress: see `Progress`.
        where: see `pack`.

    Raises:
        UserError: a record can't be read, its backdoor is not in the cache, or the clone has such a
            branch or such a submission already.
    """
    if name is not None:
        _check_name(name)
    base = clone.base()
    if not clone.has(base, RULES):
        raise UserError(
            f"--pr {clone.folder} has no {RULES} in {base}, so it is no clone of the benchmark: "
            "give one."
        )
    with TemporaryDirectory() as work:
        place = Path(work) / "records"
        found = merge(results, place)
        if problem := next(iter([*found.refused, *found.unread]), None):
            raise UserError(f"this can't be submitted: {problem}")
        records = {path: read_record(path) for path in report.scan_records(place).paths}
        attacks = sorted({record.spec.attack for record in records.values()} - {"clean"})
        if name is None:
            if len(attacks) != 1:
                raise UserError(
                    f"the records are of {len(attacks)} attacks ({', '.join(attacks)}): give the "
                    "submission a --name."
                )
            name = attacks[0].replace("_", "-")
            _check_name(name)
        branch, folder = f"submit/{name}", f"{FOLDER}/{name}"
        if clone.has_branch(branch) or clone.has(base, folder):
            raise UserError(
                f"{clone.folder} has a branch {branch} or a folder {folder} already: give another "
                f"--name, or remove the branch with git branch -D {branch}."
            )
        texts = (path for path in sorted(place.rglob("*")) if path.suffix in (".json", ".csv"))
        files = {f"{folder}/records/{path.relative_to(place).as_posix()}": path for path in texts}
        zips = 0
        for done, (path, record) in enumerate(records.items()):
            progress("pack the poison", done, len(records))
            if record.threat.poisoned + record.threat.covers and "backdoor" in record.artifacts:
                packed = Path(work) / f"{path.stem}.zip"
                pack(record, cache, packed, **where)
                files[f"{folder}/poison/{packed.name}"] = packed
                zips += 1
        progress("pack the poison", len(records), len(records))
        for attack in attacks:
            if attack in ATTACKS and ATTACKS[attack].identity["sha256"]:
                files[f"{folder}/{attack}.py"] = Path(inspect.getfile(ATTACKS[attack].cls))
        if large := next((p for p, file in files.items() if file.stat().st_size > LARGEST), None):
            raise UserError(
                f"{large} has more than {LARGEST / 1e6:g} MB, which GitHub doesn't take: submit "
                "runs with a smaller --budget."
            )
        text = "\n".join(_text(name, list(records.values()), zips))
        commit = clone.commit(branch, base, files, text)
    return Prepared(branch, base, commit, folder, len(records), zips, text)


def _check_name(name: str) -> None:
    """Refuse a name that is no name of a branch and a folder.

    Raises:
        UserError: see above.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"--name {name}: give small letters a to z, digits, '-' and '_', at most 60."
        )


def _text(name: str, records: list[Record], zips: int) -> Iterator[str]:
    """The lines of the pull request's text."""
    labels = {one.spec.attack: ATTACKS.published(one.spec.attack) for one in records}
    yield f"Submit {name}: {counted(len(records), 'run')}"
    yield ""
    yield f"Attacks: {', '.join(map(for_markdown, dict.fromkeys(labels.values())))}."
    yield f"The poison of {zips} runs is packed; a maintainer trains the victims on it:"
    yield f"`bench reproduce {FOLDER}/{name}/poison/RUN.zip`, with `--plugin` for an own attack."
    yield ""
    yield "| attack | victim | bits | target | seed | poisoned images | MAP | t-MAP | gain |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in records[:ROWS]:
        spec, field = one.spec, one.scores.field
        cells = [
            labels[spec.attack], VICTIMS.published(spec.victim), spec.bits, spec.target, spec.seed,
            one.threat.poisoned + one.threat.covers, percent(field.map), percent(field.t_map),
            percent(field.backdoor_gain),
        ]  # fmt: skip
        yield "| " + " | ".join(for_markdown(str(cell)) for cell in cells) + " |"
    if len(records) > ROWS:
        yield f"… and {len(records) - ROWS} more"
    yield ""
    commits = {f"{one.commit or 'unknown'}{' (changed)' if one.dirty else ''}" for one in records}
    yield f"Made by commit {', '.join(map(for_markdown, sorted(commits)))}."
    yield f"Made on {', '.join(sorted({for_markdown(one.device) for one in records}))}."
    yield ""
    yield "- [ ] The hyper-parameters are the same for all victims, and those of the paper."
    yield "- [ ] No setting and no seed was chosen by its score."
    yield "- [ ] The attack has seen no query, no database image and no victim."
