"""The state of a training in one file, which is written and loaded completely or not at all."""

import io
import os
import time
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.files import open_regular, remove, room

Part = nn.Module | Optimizer
EVERY = 10.0  # seconds of work that a kill may cost where steps are short
HASH = 32  # bytes of SHA-256 at the beginning of the file, over the rest of it


class Checkpoint:
    """A file with the state dicts of modules and optimisers, and a few facts.

    Args:
        path: the file; None: nothing is saved.
        parts: modules and optimisers, by name.
    """

    def __init__(self, path: Path | None, **parts: Part) -> None:
        self.path, self.parts = path, parts
        self._saved = time.monotonic()

    def keep(self, **facts: Any) -> None:
        """`save`, if this object was made, or last saved, at least ``EVERY`` seconds ago."""
        if time.monotonic() - self._saved >= EVERY:
            self.save(**facts)

    def save(self, **facts: Any) -> None:
        """Write all parts and ``facts`` (JSON values).

        Raises:
            UserError: the disk is full, or can't be written any more.
        """
        if self.path is None:
            return
        states = {name: _on_cpu(part.state_dict()) for name, part in self.parts.items()}
        content = io.BytesIO()
        torch.save({"states": states, "facts": facts}, content)
        fresh = self.path.with_suffix(".new")
        with room(self.path.parent):
            with fresh.open("wb") as file:
                file.write(sha256(content.getbuffer()).digest())
                file.write(content.getbuffer())
            os.replace(fresh, self.path)
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Load all parts and return the facts; None if there is no file that fits the parts.

        A damaged or truncated file is recognised by its hash and ignored. Nothing is loaded unless
        the names and shapes of all parts are those in the file.
        """
        if self.path is None:
            return None
        try:
            with open_regular(self.path, links=False) as file:
                known, content = file.read(HASH), file.read()
        except FileNotFoundError:
            return None
        except (OSError, UserError):  # something else stands there, or it can't be read
            with room(self.path.parent):
                remove(self.path)
            return None
        if sha256(content).digest() != known:
            return None
        try:
            kept = torch.load(io.BytesIO(content), weights_only=True)
        except UnpicklingError:  # more than tensors, numbers and text: not written by `save`
            return None
        states, facts = kept["states"], dict(kept["facts"])
        if states.keys() != self.parts.keys() or not all(
            _fits(states[name], part) for name, part in self.parts.items()
        ):
            return None
        for name, part in self.parts.items():
            part.load_state_dict(states[name])
        return facts


def _on_cpu(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _on_cpu(value) for name, value in state.items()}
    return state.detach().cpu() if isinstance(state, Tensor) else state


def _fits(state: dict[str, Any], part: Part) -> bool:
    own = part.state_dict()
    if isinstance(part, nn.Module):
        return {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in own.items()}
    groups = [
        [(group["params"], group.keys()) for group in one["param_groups"]] for one in (state, own)
    ]
    weights = [weight for group in part.param_groups for weight in group["params"]]
    return groups[0] == groups[1] and all(
        value.shape in ((), weights[number].shape)
        for number, values in state["state"].items()
        for value in values.values()
        if isinstance(value, Tensor)
    )
