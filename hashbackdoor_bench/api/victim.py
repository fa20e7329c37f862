"""The base class of victims: a loss on the outputs of the hash layer.

Shapes: N batch, T training items, K bits, C classes.
"""

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn


class HashLoss(nn.Module):
    """A hashing method: the loss that turns raw outputs into codes, with its own state.

    What the method requires of network and training, set on the class or by the constructor:
        head_bias: whether the hash layer has a bias.
        head_norm: ``batch`` puts a batch norm behind the hash layer; the code is taken after it.
        head_init_std: standard deviation of the hash layer's initial weights; None: PyTorch's.
        drop_last: whether a last, smaller batch of an epoch is left out.
        recipes: recipes that it needs instead of a data set's default: {default: its own}. They
            hold where no recipe is named.
        trained: whether it is trained by its loss; if not, `solve` makes the hash layer.
        version: raise it by one when the loss changes, so that networks are trained again.
        published: how papers write its name, see `AnyAttack`.

    State (memory banks, centres, beta, trained parameters) must be in buffers and parameters: these
    are saved in the checkpoint, and the parameters are trained. Only `remember` and `on_epoch`
    change the state, so a defense may call `forward` and `items` any number of times. What is drawn
    is drawn from torch, which the run seeds.

    Args:
        bits: K.
        classes: C.
        train_size: T, the number of training items, poison included; ``index`` runs over 0..T-1.
    """

    head_bias: bool = True
    head_norm: Literal["none", "batch"] = "none"
    head_init_std: float | None = None
    drop_last: bool = False
    recipes: Mapping[str, str] = MappingProxyType({})
    trained: ClassVar[bool] = True
    version: ClassVar[int] = 1
    published: ClassVar[str | Mapping[str, str]] = ""

    def __init__(self, bits: int, classes: int, train_size: int) -> None:
        super().__init__()
        self.bits, self.classes, self.train_size = bits, classes, train_size
        self._banks: list[str] = []

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """The loss of one batch, whatever its order; changes no state.

        Args:
            z: (N,K) float32, raw outputs of the network.
            y: (N,C) float32, 0/1 labels.
            index: (N,) long, the items' slots in the training list.
            step: optimiser steps done before this one.

        Returns:
            A scalar.
        """
        raise NotImplementedError

    def items(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor | None:
        """The loss of each item, (N,), whose mean is `forward`; None if it can't be split up.

        The loss of a pair belongs to the item of its row, or half to each of its two items. The
        arguments are those of `forward`; the result has a gradient, and no state is changed.
        """
        return None

    def remember(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> None:
        """Update the state with a batch: memory banks, and what `relax` depends on.

        Called once per step, before `forward`, with the arguments of `forward` and z detached.
        """

    def solve(self, features: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Make the hash layer of a method that is not ``trained``, from all training items.

        Called once, instead of training; it may change the state.

        Args:
            features: (T,F) float32 on the CPU, of a frozen backbone, poison included.
            y: (T,C) float32, 0/1 labels.

        Returns:
            Weights (K,F) and biases (K,) of the hash layer, float32.

        Raises:
            UserError: such features don't make K bits.
        """
        raise NotImplementedError

    def register_bank(self, name: str, width: int) -> None:
        """Add a memory bank: a buffer ``name`` (T, width) of zeros, one row per training item."""
        self.register_buffer(name, torch.zeros(self.train_size, width))
        self._banks.append(name)

    def renewed(self, train_size: int) -> Self:
        """A copy for another training list, of ``train_size`` items, with empty memory banks.

        Centres, hyper-parameters, trained parameters and what `relax` depends on are copied.
        """
        new = copy.deepcopy(self)
        new.train_size = train_size
        for name in self._banks:
            bank = self.get_buffer(name)
            new.register_buffer(name, bank.new_zeros(train_size, *bank.shape[1:]))
        return new

    def relax(self, z: Tensor) -> Tensor:
        """The smooth code in [-1,1] that attackers optimise, row by row: (N,K) -> (N,K)."""
        return torch.tanh(z)

    def on_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 0."""
