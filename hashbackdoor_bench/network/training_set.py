"""A training list with its poison, and how its batches reach the device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise, zip_longest

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingSet:
    """A training list, with or without poison.

    Attributes:
        images: (T,3,h,w) uint8 as stored; rows that ``overlay`` replaces are not read.
        labels: (T,C) uint8, 0/1.
        slot: (T,) long, the row of ``overlay`` that replaces an image; -1: none.
        overlay: (P,3,h,w) uint8, the poisoned images; None: nothing is poisoned.
        stamp: puts the trigger on images after augmentation: x (n,3,S,S) in [0,1], slots (n,) ->
            (n,3,S,S).
        frozen: whether poisoned images are excluded from augmentation.
        kept: (T,) bool, the items that are trained on, at least one; None: all. Items are not
            renumbered: a memory bank has T rows, and those of the other items stay empty.
        in_pairs: whether an epoch is in the order of `paired`, for few images of many classes.

    Raises:
        ValueError: ``kept`` has another shape or type, or keeps no item.
    """

    images: Tensor
    labels: Tensor
    slot: Tensor
    overlay: Tensor | None = None
    stamp: Callable[[Tensor, Tensor], Tensor] | None = None
    frozen: bool = False
    kept: Tensor | None = None
    in_pairs: bool = False

    def __post_init__(self) -> None:
        kept = self.kept
        if kept is None:
            return
        if kept.dtype != torch.bool or kept.shape != (len(self.labels),) or not kept.any():
            raise ValueError(
                f"kept is {tuple(kept.shape)} {kept.dtype} with {int(kept.sum())} items: it must "
                f"be ({len(self.labels)},) torch.bool with one or more."
            )

    def shown(self) -> Tensor:
        """(n,) long, on the CPU: the items that are trained on, in ascending order."""
        if self.kept is None:
            return torch.arange(len(self.labels))
        return self.kept.cpu().nonzero()[:, 0]

    def arranged(self, drawn: Tensor) -> Tensor:
        """(n,) long: the items of an epoch, as drawn or in pairs of a class."""
        return paired(drawn, self.labels.cpu()) if self.in_pairs else drawn

    def to(self, device: torch.device) -> "TrainingSet":
        """A copy with tensors on ``device``; images stay where they are if they don't fit there."""
        images = held(self.images, device)
        overlay = None if self.overlay is None else self.overlay.to(images.device)
        return replace(self, images=images, labels=self.labels.to(device), overlay=overlay)

    def poisoned(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The poisoned ones of the items ``index`` (N,): positions in it (n,), and slots (n,)."""
        slot = self.slot[index]
        rows = (slot >= 0).nonzero()[:, 0]
        return rows, slot[rows]

    def gather(self, index: Tensor, rows: Tensor, slots: Tensor) -> Tensor:
        """Images (N,3,h,w) uint8 of items ``index`` (N,); the other arguments are from `poisoned`.

        All arguments are on the device of the images.
        """
        images = self.images.index_select(0, index)  # whole rows: several times faster than [index]
        if self.overlay is not None:
            images[rows] = self.overlay[slots]
        return images


def paired(drawn: Tensor, labels: Tensor) -> Tensor:
    """Items in an order in which two of a class follow each other, and the classes take turns.

    In a batch nearly every item then has another one with its labels, without which a loss of pairs
    would have no similar pair, and the classes are as balanced as their numbers allow.

    Args:
        drawn: (n,) long, the items in a random order, which decides who is with whom.
        labels: (T,C) 0/1; a class is a combination of tags. The odd item of a class makes three of
            its last pair.
    """
    rows = labels.tolist()
    classes: dict[tuple[int, ...], list[int]] = {}
    for item in drawn.tolist():
        classes.setdefault(tuple(rows[item]), []).append(item)
    groups = []
    for items in classes.values():
        ends = [0, *range(2, len(items) - 1, 2), len(items)]
        groups.append([items[start:end] for start, end in pairwise(ends)])
    turns = zip_longest(*groups, fillvalue=[])
    return torch.tensor(list(chain.from_iterable(chain.from_iterable(turns))))


def held(images: Tensor, device: torch.device) -> Tensor:
    """Move images to a GPU if they fit into half of its free memory, else leave them."""
    fits = device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
    return images.to(device) if fits else images


@dataclass(frozen=True)
class Batch:
    """The items of one training step.

    Attributes:
        index: (N,) long, the items.
        draws: (N,d), see `augment`.
        rows: (n,) long, positions of the poisoned items in ``index``.
        slots: (n,) long, their rows in `TrainingSet.overlay`.
        stored: index, rows and slots once more, on the device of the stored images.
    """

    index: Tensor
    draws: Tensor
    rows: Tensor
    slots: Tensor
    stored: tuple[Tensor, Tensor, Tensor]


def batches(
    data: TrainingSet, order: Tensor, draws: Tensor, size: int, device: torch.device
) -> Iterator[Batch]:
    """The batches of an epoch. Their indices are copied to the device together, before the steps.

    Args:
        data: the training list.
        order: the items in the order of training.
        draws: (T,d), random numbers for all items, see `augment`.
        size: N.
        device: where training runs.
    """
    poisoned = [data.poisoned(part) for part in torch.split(order, size)]
    counts = [len(rows) for rows, _ in poisoned]
    rows, slots = (torch.cat(side) for side in zip(*poisoned, strict=True))

    def parts(where: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return zip(
            torch.split(order.to(where), size),
            torch.split(rows.to(where), counts),
            torch.split(slots.to(where), counts),
            strict=True,
        )

    chances = torch.split(draws[order].to(device), size)
    for (index, here, what), stored, chance in zip(
        parts(device), parts(data.images.device), chances, strict=True
    ):
        yield Batch(index, chance, here, what, stored)
