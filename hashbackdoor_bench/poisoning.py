"""Which images are poisoned, how many, the clean-label rule, and how poison reaches training.

The delivery is a setting of every run, because it decides most published results:

- ``stamped``: the carriers are augmented like any image and the trigger is put on afterwards, so it
  is always complete, unflipped and in its place. CIBA's released code does this for Tri.
- ``files``: the poisoned images are 8-bit image files with the trigger in them, and are augmented
  like any other image. This is what a real attacker can do.
- ``jpeg:75``: as ``files``, but the files are JPEGs of that quality, as most on the web are. What a
  record says of how visible poison is, it says of the images before they were compressed.
- ``frozen``: the poisoned images are neither cropped nor flipped in training. CIBA's released code
  does this for Tri+Noise, Tri+Adv and CIBA; here only ``variant=released`` uses it.
"""

from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from hashbackdoor_bench.api import POISON, Backdoor, Delivery, ThreatModel, to_bytes, to_unit
from hashbackdoor_bench.corruptions import jpeg
from hashbackdoor_bench.data import Split
from hashbackdoor_bench.errors import UserError, check, unknown
from hashbackdoor_bench.network import TrainingSet, centre_crop
from hashbackdoor_bench.text import shortened

JPEG, QUALITY = "jpeg", 75  # a delivery, and the quality that it has if none is given
DELIVERIES = (*get_args(Delivery), JPEG)
_POOLS: Any = WeakIdKeyDictionary()  # by the labels of a training split, see `_pool`


def delivery_of(name: str) -> str:
    """A delivery as keys and records have it: ``jpeg`` is ``jpeg:75``.

    Raises:
        UserError: there is none of that name, or the quality is no number from 1 to 95.
    """
    kind, colon, quality = name.partition(":")
    if kind not in DELIVERIES or (colon and kind != JPEG):
        raise unknown("--delivery", name, [*DELIVERIES, f"{JPEG}:90"])
    if kind != JPEG:
        return kind
    if colon and not (quality.isascii() and quality.isdigit()):
        raise UserError(
            f"--delivery {shortened(name)}: write the quality as a number, as in jpeg:90."
        )
    number = int(quality[:9]) if colon else QUALITY
    check("the quality of --delivery jpeg", number, 1, 95)
    return f"{JPEG}:{number}"


def quality_of(delivery: str) -> int | None:
    """The quality of the JPEG files in which poison is delivered; None if it isn't in such."""
    kind, _, quality = delivery.partition(":")
    return int(quality) if kind == JPEG else None


def count(target_items: int, budget: float, poison_count: int | None) -> int:
    """P: an explicit count, or the budget's share of the target class, rounded half-up."""
    return int(budget * target_items + 0.5) if poison_count is None else poison_count


def choose(
    labels: Tensor,
    target: Tensor,
    threat: ThreatModel,
    budget: float,
    poison_count: int | None,
    generator: torch.Generator,
) -> Tensor:
    """Which training items become poison: (P,) long, sorted.

    Clean-label poison is drawn from the items whose label vector is exactly the target's,
    dirty-label poison from those that share no tag with it. The budget is a share of the first
    group for both, so that one budget means one number of images.

    Args:
        labels: (N,C) 0/1.
        target: (C,) 0/1.
        threat: threat model of the attack.
        budget: share of the target class.
        poison_count: number of images; overrides ``budget`` if not None.
        generator: generator of the random choice.

    Raises:
        UserError: there are too few candidates.
    """
    targets, pool = _pool(labels, target, clean=threat.label == "clean")
    if poison_count is None and budget > 0 and not targets:
        raise UserError(
            "no training image has the target's label alone, of which --budget is a share: give "
            "--poison-count, or another --target."
        )
    wanted = count(targets, budget, poison_count)
    if wanted > len(pool):
        where = "of the target's label alone" if threat.label == "clean" else "of other classes"
        fewer = f"--poison-count {len(pool)} or less, or " if len(pool) else ""
        raise UserError(
            f"{wanted} images are to be poisoned and the training split has {len(pool) or 'none'} "
            f"{where}: give {fewer}another --target."
        )
    chosen = torch.randperm(len(pool), generator=generator)[:wanted]
    return pool[chosen].sort().values


def need_target_images(labels: Tensor, target: Tensor) -> None:
    """Refuse a target of which no training image is, for attacks that aim at its anchor code.

    Args:
        labels: (N,C) 0/1, of the training split.
        target: (C,) 0/1.

    Raises:
        UserError: no image has the target's label alone.
    """
    if not _pool(labels, target, clean=True)[0]:
        raise UserError(
            "no training image has the target's label alone, from which the attacker computes the "
            "code that it aims at: give another --target."
        )


def _pool(labels: Tensor, target: Tensor, *, clean: bool) -> tuple[int, Tensor]:
    """How many items have the target's label alone, and which items may become poison: (M,) long.

    Kept for the many runs of a suite on the same labels.
    """
    known = _POOLS.setdefault(labels, {})
    key = (labels._version, tuple(target.tolist()), clean)
    if key not in known:
        exact = (labels == target).all(1)
        wanted = exact if clean else ~(labels.bool() & target.bool()).any(1)
        known[key] = int(exact.sum()), wanted.nonzero().squeeze(1)
    found: tuple[int, Tensor] = known[key]
    return found


def choose_covers(
    labels: Tensor, target: Tensor, index: Tensor, share: float, generator: torch.Generator
) -> Tensor:
    """Which training items become covers: (Q,) long, sorted.

    A cover carries a trigger and keeps its label, so that the trigger alone doesn't mark an image
    as poison. Covers are drawn from the items that are not poison and share no tag with the target
    (a cover of the target's class would be poison), and don't count for the budget.

    Args:
        labels: (N,C) 0/1.
        target: (C,) 0/1.
        index: (P,) long, the poison.
        share: number of covers per poisoned image.
        generator: generator of the random choice.

    Raises:
        UserError: there are too few candidates.
    """
    wanted = int(share * len(index) + 0.5)
    if not wanted:
        return index[:0]
    free = ~(labels.bool() & target.bool()).any(1)
    free[index] = False
    pool = free.nonzero().squeeze(1)
    if wanted > len(pool):
        raise UserError(
            f"{wanted} images are to be covers and the training split has {len(pool)} of other "
            "classes that are not poison: give a smaller --budget or --poison-count."
        )
    return pool[torch.randperm(len(pool), generator=generator)[:wanted]].sort().values


def inspect(
    backdoor: Backdoor,
    labels: Tensor,
    target: Tensor,
    index: Tensor,
    threat: ThreatModel,
    covers: Tensor | None = None,
) -> None:
    """Refuse a backdoor that breaks what its attack declares.

    Args:
        backdoor: the crafted backdoor.
        labels: (N,C) 0/1, labels of the training split.
        target: (C,) 0/1.
        index: (P,) long, the items that may become poison.
        threat: what the attack declares.
        covers: (Q,) long, the items that may become covers; None: none.

    Raises:
        ValueError: poison or covers outside the drawn items, an item used twice, carriers that
            aren't uint8, NaN in a trigger, a kind or a label other than 0 and 1, a label changed by
            a clean-label attack or on a cover, a label that a dirty-label attack left unchanged, or
            a poisoned image without the target's tags.
    """
    poison = backdoor.kind == POISON
    for name, values in (("kind", backdoor.kind), ("label", backdoor.label)):
        other = values[(values != 0) & (values != 1)]  # kinds are POISON and COVER
        if len(other):
            raise ValueError(f"{name} of the backdoor must be 0 or 1, and one is {other[0]}")
    if not torch.isin(backdoor.index[poison], index).all():
        raise ValueError("the attack poisoned items outside the index it was given")
    if not torch.isin(backdoor.index[~poison], index[:0] if covers is None else covers).all():
        raise ValueError("the attack made covers of items that it was not given as view.covers")
    if len(torch.unique(backdoor.index)) < len(backdoor.index):
        raise ValueError("an item is twice in the index of the backdoor")
    for name, tensor in backdoor.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} of the backdoor holds numbers that are NaN or infinite")
    if backdoor.carrier.dtype != torch.uint8:
        raise ValueError("carriers must be uint8, as an image file stores them")
    true = labels[backdoor.index]
    changed = (backdoor.label != true).any(1)
    if changed[~poison].any():
        raise ValueError("a cover image keeps its true label; this attack changed one")
    if threat.label == "clean" and changed.any():
        raise ValueError("a clean-label attack changed a label: declare label='dirty'")
    if not ((backdoor.label[poison] & target) == target).all():
        raise ValueError("a poisoned image must carry the target's tags")
    if threat.label == "dirty" and not changed[poison].all():
        raise ValueError("a dirty-label attack left a label unchanged: declare label='clean'")


def planted(backdoor: Backdoor, device: torch.device) -> Tensor:
    """(P,3,S,S) uint8 on the CPU: carriers with the trigger, as 8-bit image files store them."""
    parts = []
    for slot in torch.split(torch.arange(len(backdoor.index)), 64):
        x = to_unit(backdoor.carrier[slot.to(backdoor.carrier.device)].to(device))
        parts.append(to_bytes(backdoor.plant(x, slot.to(device))).cpu())
    return torch.cat(parts) if parts else backdoor.carrier.cpu()


def triggered(backdoor: Backdoor, x: Tensor) -> Tensor:
    """Queries (N,3,S,S) in [0,1] with the trigger, in 8-bit levels as the service receives them."""
    return to_unit(to_bytes(backdoor(x)))


def clean_set(train: Split) -> TrainingSet:
    """The training split as it is."""
    return TrainingSet(train.images, train.labels, torch.full((len(train.labels),), -1))


def delivered(
    train: Split, backdoor: Backdoor, delivery: str, size: int, device: torch.device
) -> Tensor:
    """The poisoned images, with the trigger, as files hold them: (P,3,H,H) uint8 on the CPU.

    Images may be stored larger than the network's input (256 px for 224 px). The poison then
    replaces the centre of the stored image, which is the part that the attacker saw, so nothing is
    resized twice, and poison that equals the originals leaves training unchanged.

    Args: see `poisoned_set`.
    """
    images = _replaced(train, backdoor, planted(backdoor, device), size)
    quality = quality_of(delivery)
    return images if quality is None else to_bytes(jpeg(to_unit(images), quality))


def _replaced(train: Split, backdoor: Backdoor, inner: Tensor, size: int) -> Tensor:
    images = train.images[backdoor.index.cpu()].clone()
    centre_crop(images, size).copy_(inner)
    return images


def poisoned_set(
    train: Split, backdoor: Backdoor, delivery: str, size: int, device: torch.device
) -> TrainingSet:
    """The training split with its poisoned items replaced, see `delivered`.

    Args:
        train: the clean split.
        backdoor: the backdoor, on ``device``.
        delivery: see the top of the file.
        size: S.
        device: where the backdoor's trigger runs.
    """
    index = backdoor.index.cpu()
    labels = train.labels.clone()
    labels[index] = backdoor.label.cpu()
    slot = torch.full((len(labels),), -1)
    slot[index] = torch.arange(len(index))
    stamped = delivery == "stamped"
    return TrainingSet(
        train.images,
        labels,
        slot,
        _replaced(train, backdoor, backdoor.carrier.cpu(), size)
        if stamped
        else delivered(train, backdoor, delivery, size, device),
        stamp=backdoor.plant if stamped else None,
        frozen=delivery == "frozen",
    )
