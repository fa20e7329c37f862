"""What a training is asked after every epoch. Asking changes nothing of the training."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hashbackdoor_bench.network.model import FrozenHead, HashModel, sign
from hashbackdoor_bench.network.training import encode, steps_of
from hashbackdoor_bench.network.training_step import TrainStep


class Probe:
    """Makes the gradients of a step as usual, and looks at the network after every epoch.

    Args:
        items: number of images that are trained on.
        batch: number of images in a step.
        groups: images (n,3,S,S) uint8 in the network's size, by the names of the columns.
        clean: (n,3,S,S) uint8 of the target class, without poison; their codes' majority is the
            code that poison and triggered queries are compared with.
        poison: (P,) the poison's slots in the training list.
        target: (n,) the slots of the target's other images.

    Attributes:
        epochs: for each, the columns: ``loss of poison`` and ``loss of class``, means over the
            epoch, and for each group the mean share of bits by which its codes differ from the
            target's at the end of the epoch.
    """

    def __init__(
        self,
        *,
        items: int,
        batch: int,
        groups: Mapping[str, Tensor],
        clean: Tensor,
        poison: Tensor,
        target: Tensor,
    ) -> None:
        self.items, self.batch, self.groups, self.clean = items, batch, groups, clean
        self.members = {"loss of poison": poison, "loss of class": target}
        self.epochs: list[dict[str, float]] = []
        self._seen: dict[str, list[Tensor]] = {name: [] for name in self.members}

    def __call__(self, given: TrainStep) -> Tensor:
        """The loss of a step, with its gradients; see `TrainStep`."""
        steps = steps_of(self.items, self.batch, drop_last=given.loss.drop_last)
        if given.step and given.step % steps == 0:
            self.close(given.model)
        z = given.outputs(given.x)
        given.remember(z)
        with torch.no_grad():
            losses = given.loss.items(z.detach(), given.y, given.index, given.step)
        if losses is not None:
            for name, slots in self.members.items():
                self._seen[name].append(losses[torch.isin(given.index.cpu(), slots)])
        value: Tensor = given.loss(z, given.y, given.index, given.step)
        torch.autograd.backward(value)
        return value

    def close(self, model: HashModel | FrozenHead) -> None:
        """End an epoch."""
        found = {}
        for name, parts in self._seen.items():
            found[name] = float(torch.cat(parts).mean()) if parts else float("nan")
            parts.clear()
        assert isinstance(model, HashModel), "of a frozen recipe only the hash layer is trained"
        model.eval()
        self.epochs.append(found | apart(model, self.clean, self.groups))
        model.train()


def apart(model: HashModel, clean: Tensor, groups: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean share of bits in which codes differ from the majority of the target's codes.

    Args:
        model: a network in eval mode.
        clean: (n,3,S,S) uint8 of the target class, without poison.
        groups: other images (n,3,S,S) uint8, by their names in the result.
    """
    wanted = sign(encode(model, clean, size=model.size).float().sum(0))
    return {
        name: float((encode(model, images, size=model.size) != wanted).float().mean())
        for name, images in groups.items()
    }
