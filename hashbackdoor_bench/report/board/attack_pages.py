"""What the page of an attack shows: its formula, paper, threat model, pictures and results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from hashbackdoor_bench.records import Record
from hashbackdoor_bench.registry import ATTACKS, VICTIMS
from hashbackdoor_bench.report.board.boards import Board
from hashbackdoor_bench.report.board.entries import Entry
from hashbackdoor_bench.report.board.site_files import pictures_of, slug
from hashbackdoor_bench.report.docstring_html import explained, text_html
from hashbackdoor_bench.report.selection import undefended
from hashbackdoor_bench.report.threat_words import threat_words


@dataclass(frozen=True)
class Method:
    """What an attack's file says of it, as HTML; only our own files and plugins are read.

    Attributes:
        summary: what it does, in a line.
        preset: the settings that make it another attack than its file's own; empty if none do.
        paper: papers and code.
        formula: formulas, and what is said about them.
        differences: from the authors; empty if nothing is said.
    """

    summary: Markup
    preset: str
    paper: Markup
    formula: Markup
    differences: Markup


@dataclass(frozen=True)
class PublishedRun:
    """A published record that a page names.

    Attributes:
        path: of the record.
        record: that it is.
        where: what was run, as a clause: on which victim and data, and in which suite.
    """

    path: Path
    record: Record
    where: str


@dataclass(frozen=True)
class AttackPage:
    """An attack over all boards.

    Attributes:
        attack: its name on the command line.
        title: in tables.
        page: its path in the site.
        method: what its file says; None where it is not known here, such as a plugin's.
        threat: its threat model, as names with what is said of each.
        command: that runs it; empty where it is not known here.
        pictures: a record that has some; None if none has.
        run: the record whose command is shown, that of the pictures if there is one.
        rows: where it stands, board by board.
    """

    attack: str
    title: str
    page: str
    method: Method | None
    threat: tuple[tuple[str, str], ...]
    command: str
    pictures: PublishedRun | None
    run: PublishedRun
    rows: tuple[tuple[Board, Entry], ...]


def attack_pages(found: Iterable[Board], frame: pd.DataFrame) -> list[AttackPage]:
    """The pages of all attacks of some boards, by title.

    Args:
        found: the boards.
        frame: of a `Collection`: all records whose pictures may be shown.
    """
    rows: dict[str, list[tuple[Board, Entry]]] = {}
    for board in found:
        for entry in board.entries:
            # controls stand on several boards, which have the same runs of them
            rows.setdefault(entry.attack, []).append((board, entry))
    illustrated = _illustrated(frame, set(rows))
    taken: set[str] = set()
    pages = []
    for attack, own in sorted(rows.items(), key=lambda item: ATTACKS.published(item[0]).lower()):
        shown = illustrated.get(attack)
        board, entry = own[0]
        run = shown or _published(entry.runs[0].path, entry.runs[0].record, board.suite)
        pages.append(
            AttackPage(
                attack=attack,
                title=ATTACKS.published(attack),
                page=_name(attack, taken),
                method=method_of(attack),
                threat=tuple(
                    threat_words(run.record.threat, poisons=bool(run.record.threat.poisoned))
                ),
                command=_command(attack, run.record),
                pictures=shown,
                run=run,
                rows=tuple(own),
            )
        )
    return pages


def _name(attack: str, taken: set[str]) -> str:
    """The path of a page, which no record can choose, nor make equal to another's."""
    stem = slug(attack)
    name, number = f"attacks/{stem}.html", 0
    while name in taken:
        number += 1
        name = f"attacks/{stem}.{number}.html"
    taken.add(name)
    return name


def method_of(attack: str) -> Method | None:
    """What the file of an attack says; None where it is not known here."""
    docstring = ATTACKS.docstring(attack)
    if not docstring:
        return None
    text = explained(docstring)
    defaults, own = ATTACKS.defaults(attack), ATTACKS.module(attack).rpartition(".")[2]
    usual = ATTACKS.defaults(own) if own in ATTACKS else {}
    changed = {name: value for name, value in defaults.items() if usual.get(name) != value}
    return Method(
        summary=Markup(text_html(text.summary)),
        preset=", ".join(f"attack.{name}={value}" for name, value in changed.items()),
        paper=Markup(text.paper),
        formula=Markup(text.formula),
        differences=Markup(text.differences),
    )


def _command(attack: str, record: Record) -> str:
    """The shortest command that runs an attack on a victim that it was published on."""
    if attack not in ATTACKS or record.spec.victim not in VICTIMS:
        return ""
    spec = record.spec
    words = ["bench run --attack", attack.replace("_", "-")]
    words += ["--victim", spec.victim.replace("_", "-"), "--bits", str(spec.bits)]
    return " ".join(words)


def _published(path: str, record: Record, suite: object) -> PublishedRun:
    spec = record.spec
    where = (
        f"{VICTIMS.published(spec.victim)}, {spec.bits} bits, {record.protocol.name}, "
        f"target {spec.target}, seed {spec.seed}, delivery {record.threat.delivery}"
    )
    of_suite = f"suite {suite}" if isinstance(suite, str) and suite else "in no suite"
    return PublishedRun(Path(path), record, f"{where}, {of_suite}")


def _illustrated(frame: pd.DataFrame, attacks: set[str]) -> dict[str, PublishedRun]:
    """For each attack the first record with pictures; those without a defense come first."""
    first = undefended(frame)
    found: dict[str, PublishedRun] = {}
    for part in (first, frame.drop(first.index)):
        columns: Sequence[tuple[str, str, Record, object]] = list(
            zip(part["attack"], part["path"], part["record"], part["suite"], strict=True)
        )
        for attack, path, record, suite in columns:
            if attack in attacks and attack not in found and pictures_of(Path(path)):
                found[attack] = _published(path, record, suite)
    return found
