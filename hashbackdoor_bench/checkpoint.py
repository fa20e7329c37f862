"""The state of a training in one file that appears whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, as_tensor, empty_like, nn
from torch.optim import Optimizer

Part = nn.Module | Optimizer


class Checkpoint:
    """State dicts of modules and optimisers, and a few facts.

    Args:
        path: of the file; None: nothing is kept.
        parts: what is saved and loaded, by name.
    """

    def __init__(self, path: Path | None, **parts: Part) -> None:
        self.path, self.parts = path, parts

    def save(self, **facts: Any) -> None:
        """Write all parts and ``facts`` (JSON values)."""
        if self.path is None:
            return
        tensors = {
            f"{name}.{key}": tensor.detach().cpu().contiguous()
            for name, part in self.parts.items()
            for key, tensor in _state(part).items()
        }
        fresh = self.path.with_suffix(".new")
        save_file(tensors, fresh, {"facts": json.dumps(facts)})
        os.replace(fresh, self.path)

    def load(self) -> dict[str, Any] | None:
        """Load all parts; the facts, or None if there is no file, or none that fits the parts.

        A file may be cut off by a full disk, or come from another version of a library.
        """
        if self.path is None or not self.path.is_file():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                facts: dict[str, Any] = json.loads((file.metadata() or {})["facts"])
        except (SafetensorError, KeyError, ValueError):
            return None
        states: dict[str, dict[str, Tensor]] = {name: {} for name in self.parts}
        for key, tensor in tensors.items():
            name, _, rest = key.partition(".")
            states.setdefault(name, {})[rest] = tensor
        modules = {name: part for name, part in self.parts.items() if isinstance(part, nn.Module)}
        if states.keys() != self.parts.keys() or not all(
            _shapes(_state(part)) == _shapes(states[name]) for name, part in modules.items()
        ):
            return None
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                part.load_state_dict(states[name])
            else:
                _load_optimizer(part, states[name])
        return facts


def _state(part: Part) -> dict[str, Tensor]:
    if isinstance(part, nn.Module):
        return dict(part.state_dict())
    return {
        f"{number}.{name}": as_tensor(value)
        for number, state in part.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def _load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for weight, values in optimizer.state.items():  # a fused kernel wants the weight's strides
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                values[name] = empty_like(weight).copy_(value)


def _shapes(state: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.shape for name, tensor in state.items()}
