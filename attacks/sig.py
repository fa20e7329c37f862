"""SIG: a faint sine wave across the image, on images of the target class alone.

Barni, Kallas and Tondi, "A new Backdoor Attack in CNNs by training set corruption without label
poisoning", ICIP 2019. https://arxiv.org/abs/1902.11237, public code:
https://github.com/SCLBD/BackdoorBench, https://github.com/vtu81/backdoor-toolbox

    v(i, j) = delta sin(2 pi j f / S);   x' = clip(x + v)        j: column; equal in all channels

Labels don't change. The paper claims that this backdoors a classifier if enough of the target's
images carry the wave, although no label is wrong. With public code's defaults of a tenth of
CIFAR-10's training set, all of the target's images do.

Differs from public code:

- delta is 20 as papers quote it; public suites use 30 or 40. A wave of another strength for queries
  is the option ``delta_query``;
- the result is rounded; public code truncates it, which darkens poison by almost half a grey level.

A mirrored wave has the correlation -cos(2 pi f / S) with the wave: -.38 at 32 px and -.99 at
224 px. So with the delivery ``files`` and an augmentation that mirrors images, half of the poison
that a victim sees carries nearly the opposite trigger.
"""

import math

import torch
from torch import Tensor

from hashbackdoor_bench import (
    ATTACKS,
    Additive,
    Attack,
    AttackerView,
    Backdoor,
    ThreatModel,
    UserError,
    check,
)


@ATTACKS.register
class SIG(Attack):
    """A horizontal sine wave that is added to images.

    Args:
        delta: amplitude of the wave in training images, in grey levels of 255.
        frequency: f, periods across the image.
        delta_query: amplitude in queries; None: as in training images.
    """

    published = "SIG"
    threat = ThreatModel(label="clean", knowledge="none", trigger="additive")
    delivery = "files"
    backdoor = Additive

    def __init__(
        self, *, delta: float = 20.0, frequency: int = 6, delta_query: float | None = None
    ) -> None:
        check("attack.delta", delta, 0, 255)
        check("attack.frequency", frequency, 1)
        check("attack.delta_query", delta if delta_query is None else delta_query, 0, 255)
        self.delta, self.frequency = delta, frequency
        self.delta_query = delta if delta_query is None else delta_query

    def accept(self, labels: Tensor, target: Tensor, size: int) -> dict[str, str]:
        """See `Attack.accept`."""
        if 2 * self.frequency >= size:
            raise UserError(
                f"attack.frequency is {self.frequency}: an image of {size} px has room for less "
                f"than {size / 2:g} periods; give --set attack.frequency={max(1, size // 6)}."
            )
        return {}

    def craft(self, view: AttackerView) -> Backdoor:
        """See `Attack.craft`."""
        column = torch.arange(view.size, dtype=torch.float64)
        wave = torch.sin(2 * math.pi * column * self.frequency / view.size).float()
        wave = wave.expand(3, view.size, -1)
        return Additive(
            **view.poison,
            pattern=self.delta * wave,
            query_pattern=self.delta_query * wave,
        )
