"""A run's images for a person to look at: poison, triggered queries, and what they retrieve."""

from pathlib import Path

import torch
from torch import Tensor

from hashbackdoor_bench import metrics
from hashbackdoor_bench.augmentation import centre_crop
from hashbackdoor_bench.pipeline import Run
from hashbackdoor_bench.poisoning import planted
from hashbackdoor_bench.report.beside import complete
from hashbackdoor_bench.scores import item_keys, packed

SHOWN, NEAREST = 8, 10


def samples(run: Run) -> dict[str, Tensor]:
    """Images of a finished run, uint8 on the CPU; n is at most 8.

    Returns:
        ``poison_before`` and ``poison_after`` (n,3,S,S); ``query_before`` and ``query_after``
        (n,3,S,S), of as many classes as possible; ``hits_before`` and ``hits_after``
        (n,10,3,S,S), what these retrieve from the poisoned victim, and ``relevant_before`` and
        ``relevant_after`` (n,10), whether that shares a tag with the query, with the target.
    """
    plan, splits, size = run.plan, run.plan.splits, run.plan.splits.size
    index = run.backdoor.index.cpu()[:SHOWN]
    attacked = plan.truth.attacked.nonzero().squeeze(1)
    rows = one_a_class(splits.query.labels[attacked])
    before = centre_crop(splits.query.images[attacked[rows]], size)
    out = {
        "poison_before": centre_crop(splits.train.images[index], size),
        "poison_after": planted(run.backdoor, run.device)[: len(index)],
        "query_before": before,
        "query_after": run.trigger(before),
    }
    codes = packed(run.victim_codes)
    ids = item_keys(splits.database.ids)
    for name, query, labels in (
        ("before", codes.query[attacked[rows]], splits.query.labels[attacked[rows]]),
        ("after", codes.triggered[rows], plan.target.expand(len(rows), -1)),
    ):
        hits = metrics.nearest(query, codes.database, NEAREST, bits=plan.spec.bits, ids=ids)
        images = centre_crop(splits.database.images[hits.flatten()], size)
        out[f"hits_{name}"] = images.view(*hits.shape, 3, size, size)
        shared = splits.database.labels[hits].bool() & labels[:, None].bool()
        out[f"relevant_{name}"] = shared.any(2)
    return {name: tensor.clone() for name, tensor in out.items()}


def draw_samples(path: Path, stages: Run) -> list[Path]:
    """The pictures beside a record, drawn if any is missing."""
    folder = path.with_suffix("")
    curves = stages.backdoor_artifact.facts.get("history") or {}
    there = complete(folder, poisoned=len(stages.backdoor.index) > 0, curves=bool(curves))
    if there:
        return there
    from hashbackdoor_bench.report import pictures  # late: half a second of matplotlib

    images = {name: tensor.numpy() for name, tensor in samples(stages).items()}
    return pictures.draw(images, folder, target=str(stages.plan.spec.target), curves=curves)


def one_a_class(labels: Tensor) -> Tensor:
    """Up to 8 rows of labels (N,C), first one of each class, then whatever comes."""
    first = {int(row.argmax()): number for number, row in reversed(list(enumerate(labels)))}
    rows = [*sorted(first.values()), *range(len(labels))]
    return torch.tensor(list(dict.fromkeys(rows))[:SHOWN], dtype=torch.long)
