"""The numbers of a run with what each says, for a terminal and for a page."""

from collections.abc import Iterator

from hashbackdoor_bench.records import Record, carry_trigger, chance, collapsed
from hashbackdoor_bench.registry import ATTACKS, DEFENSES, VICTIMS
from hashbackdoor_bench.report.defense_rows import Row, defense_rows
from hashbackdoor_bench.report.formatting import limits, percent, poisoned, ssim
from hashbackdoor_bench.spec import RunSpec

HEADLINES = ("MAP", "t-MAP", "backdoor gain", "t-MAP@dominant")  # figures that stand out


def result_title(record: Record) -> str:
    """What was run: attack, victim, data, target and seed, as a clause."""
    spec = record.spec
    title = (
        f"{ATTACKS.published(spec.attack)} on {VICTIMS.published(spec.victim)}, {spec.bits} bits, "
        f"{record.protocol.name}, target {spec.target!r}, seed {spec.seed}"
    )
    if record.defense is not None:
        title += f", defended by {DEFENSES.published(spec.defense)}"
    if spec.aware != RunSpec.aware:
        title += f", attacker aware of {DEFENSES.published(spec.aware)}"
    return title


def result_caption(record: Record) -> str:
    """What all numbers of a run share, and whether a victim collapsed."""
    threat = record.threat
    return (
        f"convention field (ties expected, no hit = 0), R = {record.protocol.top_k}; "
        f"{threat.label}-label, {poisoned(threat)}, delivery {threat.delivery}"
        f"{limits(threat)}{_collapse(record)}"
    )


def result_rows(record: Record) -> Iterator[Row]:
    """MAP, t-MAP, controls, gain and PSNR of a record, in percent where they are shares.

    Returns:
        Figure, percent, 95 % interval and meaning of each; an empty row stands before a defense.
    """
    threat, field = record.threat, record.scores.field
    triggered = carry_trigger(threat.trigger, threat.chosen)
    rows = (
        ("MAP", "map", "clean queries, own class"),
        ("MAP, clean victim", "map_clean_victim", "without poison in training"),
        ("delta MAP", "delta_map", "change for clean queries"),
        ("t-MAP", "t_map", "triggered queries, target"),
        ("t-MAP, clean victim", "t_map_clean_victim", "control: trigger, no poison"),
        (
            "t-MAP, no trigger",
            "t_map_untriggered",
            "control: poison, no trigger" if triggered else "the same: there is no trigger",
        ),
        (
            "backdoor gain",
            "backdoor_gain",
            "over the larger control" if triggered else "over the clean victim",
        ),
    )
    for name, key, meaning in rows:
        interval = field.intervals.get(key)
        between = "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"
        yield name, percent(getattr(field, key)), between, meaning
    dominant = record.retrieval.dominant
    if dominant is not None:
        whose = f"{dominant.queries} triggered queries, class {dominant.class_name!r}"
        yield "t-MAP@dominant", percent(dominant.t_map), "", whose
        gain = percent(dominant.backdoor_gain)
        yield "gain@dominant", gain, "", "the same, over its larger control"
    seen = record.imperceptibility
    for name, images in (("poison", seen.poison), ("cover", seen.cover), ("query", seen.query)):
        if not images:
            continue
        psnr, similar, similarity = images.psnr, images.ssim, images.similarity
        shown = "-" if psnr is None else f"{psnr:.1f} dB"
        meaning = "no image changed" if similar is None or psnr is None else f"SSIM {ssim(similar)}"
        if threat.trigger in ("generated", "additive") and isinstance(similarity, float):
            meaning += f", residuals correlate {similarity:.2f}"
        yield f"PSNR, {name}", shown, "", meaning
    if record.defense is not None:
        yield from defense_rows(record.defense)


def _collapse(record: Record) -> str:
    """A sentence on the victims that retrieve nothing; empty if there are none."""
    victims = {"map": "poisoned victim", "map_clean_victim": "clean victim"}
    names = " and the ".join(victims[name] for name in collapsed(record))
    if not names:
        return ""
    return (
        f".\nThe {names} collapsed: the MAP is that of a database in random order "
        f"({percent(chance(record))}), so the other figures say nothing of the attack."
    )
