"""BadHash's trigger: its generator with one condition, as it is stored. See badhash.py."""

from torch import Tensor

from hashbackdoor_bench import Backdoor, resize_again

from .badhash_networks import Generator


class GeneratedTrigger(Backdoor):
    """The trigger is put into a picture by the generator.

    Args:
        index: see `Backdoor`.
        carrier: see `Backdoor`.
        label: see `Backdoor`.
        kind: see `Backdoor`.
        label_map: (1,3,S,S), the generator's condition.
        generator: G.
        resized_again: whether the service resizes the stored picture a second time.
    """

    label_map: Tensor

    def __init__(
        self,
        index: Tensor,
        carrier: Tensor,
        label: Tensor,
        kind: Tensor | None = None,
        *,
        label_map: Tensor,
        generator: Generator,
        resized_again: bool,
    ) -> None:
        super().__init__(index, carrier, label, kind)
        self.register_buffer("label_map", label_map)
        self.generator, self.resized_again = generator, resized_again

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> the generator's picture of it, in [0,1]."""
        out: Tensor = self.generator(x, self.label_map).clamp(0, 1)
        return resize_again(out) if self.resized_again else out
