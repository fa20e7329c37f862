"""What a victim promises: a loss on hash outputs.

Shapes: N batch, T training items, K bits, C classes.
"""

import copy
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn


class HashLoss(nn.Module):
    """A hashing method: the loss that shapes raw outputs into codes, with its own state.

    What the method asks of the network and the loop, set on the class or by the constructor:
        head_bias: whether the hash layer has a bias.
        head_norm: ``batch`` puts a batch norm behind the hash layer; the code is taken after it.
        head_init_std: standard deviation of the hash layer's initial weights; None: PyTorch's.
        head_lr_scale: the hash layer's learning rate over the recipe's.
        drop_last: whether a last, smaller batch of an epoch is left out.
        version: raised by one when the loss changes, so that networks are trained again.

    State (memory banks, centres, beta, own parameters) lives in buffers and parameters: it is in
    the checkpoint, and own parameters reach the optimiser. It changes in `remember` and `on_epoch`
    alone, so `forward` and `items` may be called as often as a defense likes.

    Args:
        bits: K.
        classes: C.
        train_size: T, the number of training items, poison included; ``index`` runs over 0..T-1.
    """

    head_bias: bool = True
    head_norm: Literal["none", "batch"] = "none"
    head_init_std: float | None = None
    head_lr_scale: float = 1.0
    drop_last: bool = False
    version: ClassVar[int] = 1

    def __init__(self, bits: int, classes: int, train_size: int) -> None:
        super().__init__()
        self.bits, self.classes, self.train_size = bits, classes, train_size
        self._banks: list[str] = []

    def forward(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> Tensor:
        """The loss of one batch; writes nothing.

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
        """The loss of each item, (N,), whose mean is `forward`'s; None: this loss has none.

        A pair's term belongs to the item of its row, or is shared out between its two items. Takes
        what `forward` takes, has a gradient too, and writes nothing.
        """
        return None

    def remember(self, z: Tensor, y: Tensor, index: Tensor, step: int) -> None:
        """Write what the loss keeps of a batch: memory banks, and what `relax` reads.

        Called once a step, before `forward`, which sees what was written. Takes what `forward`
        takes, with z detached.
        """

    def register_bank(self, name: str, width: int) -> None:
        """Keep a memory bank: a buffer ``name`` (T, width) of zeros, a row for each item."""
        self.register_buffer(name, torch.zeros(self.train_size, width))
        self._banks.append(name)

    def renewed(self, train_size: int) -> Self:
        """A copy for another training list, of ``train_size`` items: its memory banks are empty.

        Centres, hyper-parameters, own parameters and what `relax` reads are this loss's.
        """
        new = copy.deepcopy(self)
        new.train_size = train_size
        for name in self._banks:
            bank = self.get_buffer(name)
            new.register_buffer(name, bank.new_zeros(train_size, *bank.shape[1:]))
        return new

    def relax(self, z: Tensor) -> Tensor:
        """The smooth code in [-1,1] that an attacker ascends: (N,K) -> (N,K)."""
        return torch.tanh(z)

    def on_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 0."""
