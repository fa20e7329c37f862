"""Records that no run made, for tests of what is read from them."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from hashbackdoor_bench import RunSpec
from hashbackdoor_bench.data import PROTOCOLS
from hashbackdoor_bench.records import (
    CleanSearch,
    CodeDistances,
    ConventionScores,
    DataFacts,
    DispersedCodes,
    Dispersion,
    Distances,
    FieldScores,
    Imperceptibility,
    Losses,
    Parameters,
    PrecisionRecall,
    Record,
    Retrieval,
    Scores,
    Search,
    Threat,
    TriggeredSearch,
    Visibility,
    record_key,
    record_path,
)
from hashbackdoor_bench.spec import OVERRIDES, digest

FOUND = dict.fromkeys(Search.__struct_fields__[:-1], 0.5) | {"no_hit": 0.0}  # but the histogram
MINI = PROTOCOLS["fashion-mini"]
MEMBERS = 300  # training images of each of its classes


def around(value: float, least: float) -> tuple[float, float]:
    """An interval around a score, inside of ``least`` to 1."""
    return max(value - 0.03, least), min(value + 0.03, 1.0)


def made(
    *,
    map: float = 0.8,
    t_map: float = 0.7,
    map_clean_victim: float = 0.81,
    t_map_clean_victim: float = 0.1,
    t_map_untriggered: float = 0.05,
    shift: float = 0.01,
    knowledge: str = "surrogate",
    psnr: float | None = 30.0,
    top_k: int = 1000,
    protocol: str = MINI.sha256,
    commit: str | None = "c0ffee",
    dirty: bool | None = False,
    **spec: Any,
) -> Record:
    """A record whose parts agree; what is not given is a default.

    Args:
        map: of the convention ``field``, as `t_map` and the rest.
        shift: what ``ciba`` and ``badhash`` have more, and ``strict`` less.
        knowledge: ``none`` or ``surrogate``.
        psnr: dB, of poison and queries; None where nothing differs.
        top_k: R.
        protocol: SHA-256 of the lists, or what passes for it.
        commit: of the code.
        dirty: whether that was changed.
        spec: fields of `RunSpec`.
    """
    resolved = {"delivery": "files", "target": "Coat", "backbone": "cnn32", "recipe": "scratch32"}
    resolved |= {"surrogate": spec.get("victim", "hashnet"), "surrogate_backbone": "cnn32"}
    resolved |= {"surrogate_bits": spec.get("bits", 48)}
    run = RunSpec(**(resolved | spec))
    run = dataclasses.replace(run, attack_settings=tuple(sorted(run.attack_settings)))
    key = digest(run.to_dict())
    losses = (0.5,) * (run.epochs or 1)
    scores: dict[str, ConventionScores] = {}
    for convention, number in (("field", 0), ("ciba", 1), ("badhash", 1), ("strict", -1)):
        row = {
            "map": map, "t_map": t_map, "map_clean_victim": map_clean_victim,
            "t_map_clean_victim": t_map_clean_victim, "t_map_untriggered": t_map_untriggered,
        }  # fmt: skip
        row = {name: value + number * shift for name, value in row.items()}
        control = max(row["t_map_clean_victim"], row["t_map_untriggered"])
        row["delta_map"] = row["map"] - row["map_clean_victim"]
        row["backdoor_gain"] = row["t_map"] - control
        if convention == "field":
            names = ("map", "t_map", "delta_map", "backdoor_gain")
            spread: dict[str, Any] = {
                "bounds": {name: around(row[name], 0) for name in names[:2]},
                "intervals": {name: around(row[name], 0 if name in names[:2] else -1)
                              for name in names},
            }  # fmt: skip
            scores[convention] = FieldScores(**row, **spread)
        else:
            scores[convention] = ConventionScores(**row)
    poisoned = int(run.budget * MEMBERS + 0.5) if run.poison_count is None else run.poison_count
    seen = Visibility(
        images=400, psnr=psnr, ssim=0.95, max=40.0, l2=90.0, lpips=None, similarity=0.5
    )
    steps = run.bits + 1
    curve = PrecisionRecall(
        precision=(0.5,) * steps, recall=tuple(n / run.bits for n in range(steps))
    )
    own = FOUND | {"hit_at_10": 0.5 + int(key[:8], 16) / 2**33}  # two runs are never equal
    artifacts = {"victim": key}
    return Record(
        key=record_key(run, artifacts),
        spec=run,
        protocol=DataFacts(
            name=run.dataset, train=3000, query=500, database=5000, classes=10, top_k=top_k,
            sha256=protocol, pixels=MINI.pixels, multilabel=False, unlabelled={}, notes=(),
        ),
        threat=Threat(
            label="clean", knowledge=knowledge, trigger="patch", control="poison", universal=True,
            delivery=str(run.delivery), budget=poisoned / MEMBERS, poisoned=poisoned, covers=0,
            target_images=MEMBERS,
        ),
        scores=Scores(**scores),  # type: ignore[arg-type]
        retrieval=Retrieval(
            clean_queries=CleanSearch(precision_recall=curve),
            untriggered=Search(**own),
            triggered=TriggeredSearch(**own, precision_recall=curve),
        ),
        imperceptibility=Imperceptibility(poison=replace(seen, images=poisoned), query=seen),
        params=Parameters(
            attack=dict(run.attack_settings),
            victim=dict(run.victim_settings),
            recipe={name: getattr(run, name) for name in OVERRIDES},
            surrogate={},
        ),
        training=Losses(clean_victim=losses, victim=losses),
        seconds={"backdoor": 1.5, "victim": 2.0},
        artifacts=artifacts,
        device="cpu",
        versions={},
        commit=commit,
        dirty=dirty,
    )  # fmt: skip


def dispersed(record: Record, surrogate: float, victim: float) -> Record:
    """The record with these shares of the largest dispersion."""

    def codes(share: float, bits: int) -> DispersedCodes:
        one = CodeDistances(l_a=0.25 * bits, l_c=bits / 2 * share, l_a_share=0.25, l_c_share=share)
        both = Distances(relaxed=one, hard=one)
        return DispersedCodes(plain=both, perturbed=both, stamped=both)

    spec, images = record.spec, record.threat.poisoned
    attackers = codes(surrogate, spec.surrogate_bits or spec.bits)
    return replace(record, dispersion=Dispersion(images, attackers, codes(victim, spec.bits)))


def rounded(record: Record) -> Record:
    """The same record of a class of 83 images, of which 60 % are 49.8: 50 are poisoned."""
    threat = replace(record.threat, target_images=83, poisoned=50, budget=50 / 83)
    poison = replace(record.imperceptibility.poison, images=50)
    seen = replace(record.imperceptibility, poison=poison)
    return replace(record, threat=threat, imperceptibility=seen)


def stored(folder: Path, record: Record) -> Path:
    """The record's file, where a suite would put it."""
    path = record_path(folder, record.spec, record.key)
    record.write(path)
    return path


def indexed(folder: Path, labels: dict[Path, str]) -> None:
    """A suite's index over stored records."""
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("suite", "label", "victim", "bits", "target", "seed", "record"))
        for path, label in labels.items():
            place = path.relative_to(folder).as_posix()
            rows.writerow((folder.name, label, "", "", "", "", place))
