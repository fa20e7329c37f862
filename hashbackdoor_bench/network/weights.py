"""Reading a file of weights safely, and refusing one that doesn't fit a backbone completely."""

import logging
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from safetensors import SafetensorError
from torch import Tensor, nn

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import UNPARSABLE
from hashbackdoor_bench.text import visible

State = dict[str, Tensor]

COPIES = 8  # a checkpoint may hold averaged weights and the optimiser's state beside the weights
NAMED = 3  # names in a message
# What torch, safetensors and timm raise; pickle is imported for its error alone.
UNREADABLE = (
    *UNPARSABLE,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    SafetensorError,
)


def check_file(path: Path, network_bytes: int) -> None:
    """Refuse a file before it is read: it must be a regular file of a plausible size.

    Args:
        path: the file.
        network_bytes: bytes of the network's own weights.

    Raises:
        UserError: the file doesn't exist, is a folder, pipe or device, or is far too large.
    """
    if not path.exists():
        raise UserError(
            f"--weights {path}: there is no such file; give a .safetensors or .pth file."
        )
    if not path.is_file():
        raise UserError(f"--weights {path}: not a regular file; give a .safetensors or .pth file.")
    _bound(path, path.stat().st_size, network_bytes)


def read_weights(path: Path, network_bytes: int) -> State:
    """The tensors of a ``.safetensors`` file, or of one that torch loads without running code.

    Of a training checkpoint, the averaged weights are taken if there are any, as timm does.

    Raises:
        UserError: see `check_file`; or the file holds something else than tensors with names.
    """
    from timm.models import load_state_dict  # late: timm takes two seconds

    check_file(path, network_bytes)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _bound(path, sum(entry.file_size for entry in archive.infolist()), network_bytes)
        state: Any = load_state_dict(str(path), weights_only=True)
    except UNREADABLE as error:
        raise UserError(
            f"--weights {path}: not a weight file that loads without running code; "
            "save it as .safetensors."
        ) from error
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"--weights {path}: {visible(str(name)[:60])!r} is not a tensor, so this is not "
                "a weight file; save the network's state_dict alone."
            )
    _bound(path, sum(t.numel() * t.element_size() for t in state.values()), network_bytes)
    return dict(state)


@contextmanager
def load_reports() -> Iterator[list[Any]]:
    """What `nn.Module.load_state_dict` reports inside the block; timm only writes it to its log."""
    reports: list[Any] = []
    own = nn.Module.load_state_dict

    def listening(module: nn.Module, *args: Any, **options: Any) -> Any:
        reports.append(own(module, *args, **options))
        return reports[-1]

    log = logging.getLogger("timm")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with patch.object(nn.Module, "load_state_dict", listening):
            yield reports
    finally:
        log.setLevel(level)


def load_by_name(
    network: nn.Module, name: str, path: Path, state: State, classifier: Sequence[str]
) -> None:
    """Load weights by their names; those of the classifier are left out.

    Raises:
        UserError: the weights are not exactly those of the network.
    """
    kept = {key: value for key, value in state.items() if key.rpartition(".")[0] not in classifier}
    try:
        report = network.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise misfit(network, name, path, state, str(error)) from error
    if report.missing_keys or report.unexpected_keys:
        why = leftovers(report.missing_keys, report.unexpected_keys)
        raise misfit(network, name, path, state, why)


def load_by_order(network: nn.Module, name: str, path: Path, state: State) -> None:
    """Load weights in the order of the file, whatever their names.

    Raises:
        UserError: the shapes are not those of the network in its order.
    """
    if path.suffix == ".safetensors":
        raise UserError(
            f"--weights {path}: .safetensors files are sorted by name, so --weights-by-order needs "
            "a .pth file."
        )
    matched = _in_order(network, state)
    if matched is None:
        raise UserError(
            f"--weights {path}: its tensors don't have the shapes of backbone {name!r} in their "
            "order; give the file of that backbone, or another --backbone."
        )
    network.load_state_dict(matched, strict=False)  # counts of batches stay at zero


def misfit(network: nn.Module, name: str, path: Path, state: State, why: str) -> UserError:
    """The error for weights that don't fit; offers their order if their shapes fit in it.

    Args:
        network: the backbone.
        name: its name.
        path: the file.
        state: its tensors.
        why: torch's message on other shapes, or `leftovers`.
    """
    matched = None if path.suffix == ".safetensors" else _in_order(network, state)
    if matched:
        pairs = zip(state, network.state_dict(), strict=False)
        theirs, ours = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
        return UserError(
            f"--weights {path}: its names are not those of backbone {name!r} "
            f"({visible(theirs[:60])!r} where {ours!r} is expected), but its shapes are, in "
            "their order: add --weights-by-order to load them so."
        )
    lines = why.strip().splitlines()
    if "size mismatch" in why:
        why = "its tensors have other shapes, " + visible(lines[-1].strip(" .")[:160])
    return UserError(
        f"--weights {path} does not fit backbone {name!r}: {why}; give the file of that backbone, "
        "or another --backbone."
    )


def leftovers(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """What a file lacks and what it has too much, with numbers and the first names."""
    parts = []
    if missing:
        parts.append(f"it lacks {_named(missing)}")
    if unexpected:
        parts.append(f"it has {_named(unexpected)} too many")
    return " and ".join(parts)


def _named(names: Sequence[str]) -> str:
    first = ", ".join(repr(visible(name[:60])) for name in names[:NAMED])
    return f"{len(names)} tensors ({first}{', …' if len(names) > NAMED else ''})"


def _in_order(network: nn.Module, state: State) -> State | None:
    """The file's tensors under the network's names; None if the shapes differ.

    A linear layer on flattened maps may be a convolution, as in timm's VGG. After the network's
    tensors there may be those of a classifier: a weight and a bias. Counts of batches, which older
    files don't have, are left out.
    """
    theirs = [value for value in state.values() if not _counts(value)]
    ours = {key: value for key, value in network.state_dict().items() if not _counts(value)}
    rest = [tuple(value.shape) for value in theirs[len(ours) :]]
    classifier = len(rest) == 2 and len(rest[0]) > 1 and rest[1] == rest[0][:1]
    if len(theirs) < len(ours) or (rest and not classifier):
        return None
    matched = {}
    for (key, own), given in zip(ours.items(), theirs, strict=False):
        if own.shape[:1] != given.shape[:1] or own.numel() != given.numel():
            return None
        matched[key] = given.reshape(own.shape)
    return matched


def _counts(value: Tensor) -> bool:
    return value.ndim == 0 and not value.is_floating_point()


def _bound(path: Path, size: int, network_bytes: int) -> None:
    limit = COPIES * network_bytes + 2**26
    if size > limit:
        raise UserError(
            f"--weights {path}: {size / 1e6:.0f} MB of tensors are more than a checkpoint of this "
            f"backbone can hold ({limit / 1e6:.0f} MB); give the file of that backbone, or another "
            "--backbone."
        )
