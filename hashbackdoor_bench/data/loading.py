"""Loading a data set by the name of its protocol: `load` returns its `Splits`.

Importing this package doesn't import torch.
"""

import warnings
from dataclasses import replace
from pathlib import Path

from hashbackdoor_bench.data.embedded import load_embedded
from hashbackdoor_bench.data.fashion_cifar import load_drawn, on_hand
from hashbackdoor_bench.data.folder import read_folder
from hashbackdoor_bench.data.lists import read_lists
from hashbackdoor_bench.data.prepared import open_prepared, prepare_items, verify_prepared
from hashbackdoor_bench.data.protocols import PROTOCOLS, Protocol, protocol
from hashbackdoor_bench.data.splits import Items, Split, Splits
from hashbackdoor_bench.errors import UserError, check
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.spec import MOST, TOLERANCE

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "Split",
    "Splits",
    "load",
    "prepare",
    "protocol",
    "ready",
    "settled",
    "verify",
]

UNCUT = 64  # px: larger images are stored with a border, of which training takes a random part


def load(
    name: str,
    *,
    cache: Path,
    lists: Path | None = None,
    root: Path | None = None,
    top_k: int | None = None,
    size: int | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = silent,
) -> Splits:
    """A protocol with its images, which are prepared first if necessary.

    Args:
        name: a name of `PROTOCOLS`.
        cache: folder of the cache, with the folders ``data`` (prepared) and ``downloads``.
        lists: folder of the text lists, for protocols that are read from lists.
        root: folder of the images or of the data set's own files.
        top_k: R of MAP@R for ``lists`` and ``folder``, 1000 by default; the others have their own.
        size: side of the network's input in px for ``lists`` and ``folder``, 224 by default.
        tolerance: share of a split's images that may be unreadable when they are decoded; those are
            left out and listed.
        progress: called during downloads and decoding.

    Raises:
        UserError: the name is unknown, or the user's files are not those that the protocol needs.
    """
    check("--tolerance", tolerance, 0, 1)
    ours = settled(name, lists=lists, root=root, top_k=top_k, size=size)
    if ours.source == "embedded":
        return load_embedded(ours)
    if ours.source in ("fashion-mnist", "cifar10"):
        return load_drawn(ours, root, cache, progress)
    items = _items(ours, lists, root)
    prepared = prepare_items(ours, items, cache, tolerance=tolerance, progress=progress)
    return open_prepared(ours, items, prepared)


def prepare(
    name: str,
    *,
    cache: Path,
    lists: Path | None = None,
    root: Path | None = None,
    top_k: int | None = None,
    size: int | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = silent,
) -> Path | None:
    """Download or decode a data set; arguments and exceptions are those of `load`.

    What was left out or changed is given as warnings.

    Returns:
        The folder of the decoded images; None for a protocol that is read as it is.
    """
    check("--tolerance", tolerance, 0, 1)
    ours = settled(name, lists=lists, root=root, top_k=top_k, size=size)
    if ours.source in ("lists", "folder"):
        items = _items(ours, lists, root)
        prepared = prepare_items(ours, items, cache, tolerance=tolerance, progress=progress)
        for note in (*items.notes, *prepared.notes):
            warnings.warn(f"{name}: {note}")
        return prepared.folder
    load(name, cache=cache, root=root, progress=progress)
    return None


def verify(
    name: str,
    *,
    cache: Path,
    lists: Path | None = None,
    root: Path | None = None,
    top_k: int | None = None,
    size: int | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Hash a protocol's files again; the arguments are those of `load`.

    Returns:
        A sentence for each prepared file that has changed; empty if there is none.

    Raises:
        UserError: as in `load`; also if a data set without prepared files isn't as published.
    """
    ours = settled(name, lists=lists, root=root, top_k=top_k, size=size)
    if ours.source in ("lists", "folder"):
        items = _items(ours, lists, root)
        return verify_prepared(ours, items, cache, progress)
    load(name, cache=cache, root=root, progress=progress)
    return []


def ready(ours: Protocol, cache: Path) -> bool:
    """Whether the protocol can be loaded without a network and without any other files.

    For lists and folders this is true if one of that name was prepared in this cache.
    """
    if ours.source == "embedded":
        return True
    if ours.source in ("lists", "folder"):
        return any((cache / "data").glob(f"{ours.name}-*/manifest.json"))
    return on_hand(ours, cache)


def settled(
    name: str,
    *,
    lists: Path | None = None,
    root: Path | None = None,
    top_k: int | None = None,
    size: int | None = None,
) -> Protocol:
    """The protocol with the user's R and size, where it leaves them open; no file is read.

    Raises:
        UserError: the name is unknown, or the protocol doesn't leave open what is given.
    """
    ours = protocol(name)
    if lists is not None and ours.source != "lists":
        raise UserError(
            f"{name} is not read from lists: leave --lists out, or use --dataset lists."
        )
    if root is not None and ours.source == "embedded":
        raise UserError(
            f"{name} is inside the package: leave --root out, or use another --dataset."
        )
    own = ours.name in ("lists", "folder")
    for what, value, fixed in (("R", top_k, ours.top_k or "all"), ("size", size, ours.size)):
        if value is not None and value != fixed and not own:
            raise UserError(
                f"{name} fixes its {what} at {fixed}, so {value} is not this protocol: leave it "
                "out, or use --dataset lists."
            )
    if top_k is not None and top_k < 1:
        raise UserError(f"R is {top_k}, and MAP@R needs at least 1.")
    if size is not None:
        check("--size", size, 1, MOST["size"])
    if not own:
        return ours
    size = size or ours.size
    side = size if size <= UNCUT else round(size * 256 / 224)
    return replace(ours, top_k=top_k or ours.top_k, size=size, side=side)


def _items(ours: Protocol, lists: Path | None, root: Path | None) -> Items:
    return read_lists(ours, lists, root) if ours.source == "lists" else read_folder(ours, root)
