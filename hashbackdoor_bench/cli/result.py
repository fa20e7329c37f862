"""The table that a run prints at its end."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hashbackdoor_bench.cli.defended import defense_rows
from hashbackdoor_bench.records import Record, carry_trigger, chance, collapsed
from hashbackdoor_bench.registry import ATTACKS, DEFENSES, VICTIMS
from hashbackdoor_bench.report import for_rich, limits, percent, poisoned, ssim
from hashbackdoor_bench.spec import RunSpec


def result_table(record: Record) -> Table:
    """MAP, t-MAP, controls, gain and PSNR of a record, in percent where they are shares."""
    spec, threat, field = record.spec, record.threat, record.scores.field
    title = (
        f"{ATTACKS.published(spec.attack)} on {VICTIMS.published(spec.victim)}, {spec.bits} bits, "
        f"{record.protocol.name}, target {spec.target!r}, seed {spec.seed}"
    )
    if record.defense is not None:
        title += f", defended by {DEFENSES.published(spec.defense)}"
    if spec.aware != RunSpec.aware:
        title += f", attacker aware of {DEFENSES.published(spec.aware)}"
    caption = (
        f"convention field (ties expected, no hit = 0), R = {record.protocol.top_k}; "
        f"{threat.label}-label, {poisoned(threat)}, delivery {threat.delivery}"
        f"{limits(threat)}{_collapse(record)}"
    )
    table = Table(
        title=for_rich(title),
        caption=for_rich(caption),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("figure")
    table.add_column("percent", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("what it says")

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
        style = "bold" if key in ("map", "t_map", "backdoor_gain") else None
        table.add_row(name, percent(getattr(field, key)), between, meaning, style=style)
    dominant = record.retrieval.dominant
    if dominant is not None:
        whose = for_rich(f"{dominant.queries} triggered queries, class {dominant.class_name!r}")
        table.add_row("t-MAP@dominant", percent(dominant.t_map), "", whose, style="bold")
        gain = percent(dominant.backdoor_gain)
        table.add_row("gain@dominant", gain, "", "the same, over its larger control")
    seen = record.imperceptibility
    for name, images in (("poison", seen.poison), ("cover", seen.cover), ("query", seen.query)):
        if not images:
            continue
        psnr, similar, similarity = images.psnr, images.ssim, images.similarity
        shown = "-" if psnr is None else f"{psnr:.1f} dB"
        meaning = "no image changed" if similar is None or psnr is None else f"SSIM {ssim(similar)}"
        if threat.trigger in ("generated", "additive") and isinstance(similarity, float):
            meaning += f", residuals correlate {similarity:.2f}"
        table.add_row(f"PSNR, {name}", shown, "", meaning)
    if record.defense is not None:
        for row in defense_rows(record.defense):
            table.add_row(*row)
    return table


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
