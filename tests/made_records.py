"""Records that no run made, for tests of what is read from them."""

import csv
from pathlib import Path
from typing import Any

from hashbackdoor_bench import RunSpec
from hashbackdoor_bench.records import (
    CONVENTIONS,
    CleanSearch,
    ConventionScores,
    DataFacts,
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

FOUND = dict.fromkeys(Search.__struct_fields__[:-1], 0.5)  # all but the histogram


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
    protocol: str = "9e12",
    commit: str | None = "c0ffee",
    dirty: bool | None = False,
    **spec: Any,
) -> Record:
    """A record whose parts agree; what is not given is a default.

    Args:
        map: of the first convention, as `t_map` and the rest; each next one has ``shift`` more.
        shift: see there.
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
    scores: dict[str, ConventionScores] = {}
    for number, convention in enumerate(CONVENTIONS):
        row = {
            "map": map, "t_map": t_map, "map_clean_victim": map_clean_victim,
            "t_map_clean_victim": t_map_clean_victim, "t_map_untriggered": t_map_untriggered,
        }  # fmt: skip
        row = {name: value + number * shift for name, value in row.items()}
        control = max(row["t_map_clean_victim"], row["t_map_untriggered"])
        row["delta_map"] = row["map"] - row["map_clean_victim"]
        row["backdoor_gain"] = row["t_map"] - control
        spread: dict[str, Any] = {"bounds": {}, "intervals": {}}
        scores[convention] = (
            FieldScores(**row, **spread) if convention == "field" else ConventionScores(**row)
        )
    seen = Visibility(
        images=180, psnr=psnr, ssim=0.95, max=8.0, l2=90.0, lpips=None, similarity=0.5
    )
    curve = PrecisionRecall(precision=(), recall=())
    artifacts = {"victim": "ab" * 32}
    return Record(
        key=record_key(run, artifacts),
        spec=run,
        protocol=DataFacts(
            name=run.dataset, train=3000, query=1000, database=5000, classes=10, top_k=top_k,
            sha256=protocol, pixels="9e13", multilabel=False, unlabelled={}, notes=(),
        ),
        threat=Threat(
            label="clean", knowledge=knowledge, trigger="patch", control="poison", universal=True,
            delivery=str(run.delivery), budget=run.budget, poisoned=180, covers=0,
            target_images=round(180 / run.budget) if run.budget else 0,
        ),
        scores=Scores(**scores),  # type: ignore[arg-type]
        retrieval=Retrieval(
            clean_queries=CleanSearch(precision_recall=curve),
            untriggered=Search(**FOUND),
            triggered=TriggeredSearch(**FOUND, precision_recall=curve),
        ),
        imperceptibility=Imperceptibility(poison=seen, query=seen),
        params=Parameters(attack={}, victim={}, recipe={"epochs": run.epochs}, surrogate={}),
        training=Losses(clean_victim=(0.5,), victim=(0.5,)),
        seconds={"backdoor": 1.5, "victim": 2.0},
        artifacts=artifacts,
        device="cpu",
        versions={},
        commit=commit,
        dirty=dirty,
    )  # fmt: skip


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
