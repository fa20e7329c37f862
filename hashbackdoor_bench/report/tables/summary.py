"""One row an attack, over all victims: gain, side effect, visibility, threat model."""

from math import inf
from statistics import fmean

import pandas as pd

from hashbackdoor_bench.report.board.leaderboard import LEAST_CLEAN_MAP, SAME_VICTIM
from hashbackdoor_bench.report.captions import bold, provenance, shared, surrogates
from hashbackdoor_bench.report.selection import SAME_ATTACK, Draws, draws, one_kind
from hashbackdoor_bench.report.spelling import NOTHING, interval, number, percent, signed
from hashbackdoor_bench.report.statistics import estimate
from hashbackdoor_bench.report.tables.blocks import delivery_of, facts, winners
from hashbackdoor_bench.report.tables.parts import Block, Cell, Line, Table

COLUMNS = (
    "backdoor gain", "95 % interval", "largest |delta MAP|", "PSNR poison (dB)", "PSNR query (dB)",
    "SSIM poison", "SSIM query", "threat", "delivery", "n",
)  # fmt: skip


def summary(frame: pd.DataFrame, convention: str) -> Table:
    """The table, the highest gain on top; attacks that lack a victim have no gain.

    Args:
        frame: the records, with heads in ``row``.
        convention: whose scores.

    Raises:
        UserError: runs would be averaged or compared that differ in more than draws.
    """
    victims = list(dict.fromkeys(zip(frame["victim"], frame["bits"], strict=True)))
    gains: dict[str, Draws] = {}
    deltas: dict[str, Draws] = {}
    for (victim, bits), part in frame.groupby(["victim", "bits"], sort=False):
        one_kind(part, f"{victim}, {bits} bits", SAME_VICTIM)
        for head, runs in part.groupby("row", sort=False):
            one_kind(runs, f"{head} on {victim}, {bits} bits", SAME_ATTACK)
    for name, part in frame.groupby("row", sort=False):
        head = str(name)
        gains[head] = draws(part, head, f"{convention}.backdoor_gain")
        deltas[head] = draws(part, head, f"{convention}.delta_map")
    whole = {head: of for head, of in gains.items() if len(of) == len(victims)}
    best = winners(frame, whole)
    rows = [
        _line(head, part, whole.get(head), deltas[head], head in best, convention)
        for head, part in ((head, frame[frame["row"] == head]) for head in gains)
    ]
    rows.sort(key=lambda row: inf if row.cells[0].mean is None else -row.cells[0].mean)
    told = [
        f"Backdoor gain in percent: mean over {_victims(victims)} (each weighs the same), with its "
        "95 % interval over targets and seeds; largest |delta MAP|: of a victim's mean, in "
        "percent; PSNR and SSIM of poisoned images and of triggered queries, no number where they "
        "are the originals; n: runs.",
        *shared(frame, convention),
        *surrogates(frame),
        bold(frame),
        *_missing(gains, victims),
        *_untrained(frame, convention),
        *provenance(frame),
    ]
    return Table(
        "Attacks over all victims", "attack", COLUMNS, (Block("", tuple(rows)),), tuple(told)
    )


def _line(
    head: str,
    part: pd.DataFrame,
    gains: Draws | None,
    deltas: Draws,
    best: bool,
    convention: str,
) -> Line:
    first = part.iloc[0]
    gain = estimate([list(of.values()) for of in gains.values()]) if gains else None
    delta = max((abs(fmean(of.values())) for of in deltas.values()), default=None)
    threat = f"{first['label_kind']}-label, {first['trigger']}, "
    threat += "no surrogate" if first["knowledge"] == "none" else "surrogate"
    if first["trigger"] == "none":
        threat = "control, no trigger"
    n = len(part)
    cells = [
        Cell(signed(gain.mean), 100 * gain.mean, None, gain.n, best) if gain else Cell(NOTHING),
        Cell(interval(gain) or NOTHING),
        Cell(NOTHING) if delta is None else Cell(percent(delta), 100 * delta, None, n),
        *(_seen(part[f"{name}_{of}"]) for name in ("psnr", "ssim") for of in ("poison", "query")),
        Cell(threat),
        Cell(delivery_of(part, head)),
        Cell(str(n), n, None, n),
    ]
    return Line(head, tuple(cells), facts(part, head, convention))


def _seen(values: pd.Series) -> Cell:
    known = [float(value) for value in values.dropna()]
    if not known:
        return Cell(NOTHING)
    mean = fmean(known)
    text = number(mean) if str(values.name).startswith("psnr") else f"{mean:.3f}"
    return Cell(text, mean, None, len(known))


def _victims(victims: list[tuple[str, int]]) -> str:
    bits = {k for _, k in victims}
    return ", ".join(f"{name}, {k} bits" if len(bits) > 1 else name for name, k in victims)


def _missing(gains: dict[str, Draws], victims: list[tuple[str, int]]) -> list[str]:
    """Which attacks have no gain, and for want of which victims."""
    return [
        f"{head} has no gain here: no run of it on "
        f"{_victims([victim for victim in victims if victim not in of])}."
        for head, of in gains.items()
        if len(of) < len(victims)
    ]


def _untrained(frame: pd.DataFrame, convention: str) -> list[str]:
    """Victims that had learnt little without poison: they count here, not for a place."""
    clean = frame.groupby(["victim", "bits"], sort=False)[f"{convention}.map_clean_victim"].mean()
    return [
        f"{victim}, {bits} bits, had learnt little without poison (MAP {percent(value)}): it "
        "counts here, but not for a place on the leaderboard (--where takes victims by name)."
        for (victim, bits), value in clean.items()
        if value < LEAST_CLEAN_MAP
    ]
