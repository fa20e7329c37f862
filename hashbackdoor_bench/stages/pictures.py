"""A run's images for a person to look at: poison, triggered queries, and what they retrieve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from hashbackdoor_bench import metrics, poisoning
from hashbackdoor_bench.api import COVER, POISON
from hashbackdoor_bench.network import centre_crop
from hashbackdoor_bench.stages.codes import VICTIM

if TYPE_CHECKING:
    from hashbackdoor_bench.stages.pipeline import Run

SHOWN, NEAREST = 8, 10


@dataclass(frozen=True)
class Shown:
    """The contents of a run's pictures.

    Attributes:
        target: name of the target class.
        poisoned: whether the run poisons anything.
        sources: names of the classes of the poisoned images that are shown, before poisoning.
        relabelled: whether these images get other labels with the trigger.
        curves: losses of crafting by name, with one value per epoch; empty if nothing was trained.
        images: function that makes the images, see `images_of`.
    """

    target: str
    poisoned: bool
    sources: tuple[str, ...]
    relabelled: bool
    curves: Mapping[str, Sequence[float]]
    images: Callable[[], Mapping[str, NDArray[Any]]]


# Draws the pictures of a run that a folder lacks; returns the paths of all its pictures, in order.
Draw = Callable[[Path, Shown], list[Path]]


def shown(run: "Run") -> Shown:
    """The contents of a finished run's pictures; images are made only if ``images`` is called."""
    index = _slots(run, POISON)
    true = run.plan.splits.train.labels[run.backdoor.index.cpu()[index]]
    classes = [run.plan.splits.classes[number] for number in true.any(0).nonzero().flatten()]
    return Shown(
        target=str(run.plan.spec.target),
        poisoned=len(run.backdoor.index) > 0,
        sources=tuple(classes),
        relabelled=bool((run.backdoor.label.cpu()[index] != true).any()),
        curves=run.crafted.facts.get("history") or {},
        images=lambda: {name: tensor.numpy() for name, tensor in images_of(run).items()},
    )


def images_of(run: "Run") -> dict[str, Tensor]:
    """Images of a finished run, uint8 on the CPU; n is at most 8.

    Returns:
        ``poison_before`` and ``poison_after`` (n,3,S,S); ``cover_before`` and ``cover_after``
        (n,3,S,S), empty without covers; ``query_before`` and ``query_after`` (n,3,S,S), of as many
        classes as possible; ``hits_before`` and ``hits_after`` (n,10,3,S,S), the items that these
        queries retrieve from the poisoned victim; ``relevant_before`` (n,10), whether an item
        shares a tag with the query, and ``relevant_after`` (n,10), whether it shares a tag with the
        target.
    """
    plan, splits, size = run.plan, run.plan.splits, run.plan.splits.size
    index = run.backdoor.index.cpu()
    planted = centre_crop(
        poisoning.delivered(splits.train, run.backdoor, plan.delivery, size, run.device), size
    )
    poison, covers = _slots(run, POISON), _slots(run, COVER)
    attacked = plan.truth.attacked.nonzero().squeeze(1)
    rows = one_of_each_class(splits.query.labels[attacked])
    before = centre_crop(splits.query.images[attacked[rows]], size)
    out = {
        "poison_before": centre_crop(splits.train.images[index[poison]], size),
        "poison_after": planted[poison],
        "cover_before": centre_crop(splits.train.images[index[covers]], size),
        "cover_after": planted[covers],
        "query_before": before,
        "query_after": run.trigger(before),
    }
    codes = run.codes(VICTIM)
    ids = metrics.item_keys(splits.database.ids)
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


def _slots(run: "Run", kind: int) -> Tensor:
    """The slots of the poisoned images or covers that are shown."""
    return (run.backdoor.kind.cpu() == kind).nonzero().squeeze(1)[:SHOWN]


def one_of_each_class(labels: Tensor) -> Tensor:
    """Numbers of up to 8 rows of labels (N,C): first one of each class, then other rows."""
    first = {int(row.argmax()): number for number, row in reversed(list(enumerate(labels)))}
    rows = [*sorted(first.values()), *range(len(labels))]
    return torch.tensor(list(dict.fromkeys(rows))[:SHOWN], dtype=torch.long)
