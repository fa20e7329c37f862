"""BadHash's generator against its discriminator: the two losses, and the training.

The losses and the differences between the variants are described at the top of badhash.py.
"""

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from hashbackdoor_bench import AttackerView, Diverged, HashModel, lpips_for, ssim_distance, to_unit

from .badhash_labels import BETAS
from .badhash_networks import Discriminator, Generator, LabelEncoder


class ConditionalGAN(nn.Module):
    """The generator with one label as its condition, the discriminator, and the losses of both.

    Args:
        size: S.
        width: channels of the first layers.
        weights: (a, p, b, w).
        raw: whether L_hash takes the surrogate's raw output instead of its relaxed code.
        clamped: whether the surrogate sees pixels clamped to [0,1], straight-through.
        rescaled: whether LPIPS sees pixels in [-1,1] instead of [0,1].
        distance: d: ``lpips``, ``ssim`` or ``none``.
        epsilon: see `Generator`.
        label: (C,) float, l*.
        feature: (1,512), r of l*.
        code: (K,), c.
    """

    label: Tensor
    feature: Tensor
    code: Tensor

    def __init__(
        self,
        size: int,
        width: int,
        *,
        weights: tuple[float, float, float, float],
        raw: bool,
        clamped: bool,
        rescaled: bool,
        distance: str,
        epsilon: float | None,
        label: Tensor,
        feature: Tensor,
        code: Tensor,
    ) -> None:
        super().__init__()
        self.label_encoder = LabelEncoder(size, width)
        self.generator = Generator(width, epsilon)
        self.discriminator = Discriminator(size, len(label), width)
        self.raw, self.clamped, self.distance = raw, clamped, distance
        self.a, self.p, self.b, self.w = weights
        self.lpips = lpips_for(size, rescale=rescaled) if distance == "lpips" else None
        for name, value in (("label", label), ("feature", feature), ("code", code)):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> x_b (N,3,S,S), not clamped."""
        x_b: Tensor = self.generator(x, self.label_encoder(self.feature))
        return x_b

    def generator_loss(
        self, surrogate: HashModel, x_b: Tensor, x: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_G, and its terms without their weights; d and L_adv only where their weight isn't zero.

        Args:
            surrogate: F.
            x_b: (N,3,S,S), not clamped.
            x: (N,3,S,S) in [0,1].
        """
        seen = x_b
        if self.clamped:
            seen = x_b + (x_b.clamp(0, 1) - x_b).detach()  # the gradient goes straight through
        hashed = surrogate(seen) if self.raw else surrogate.relaxed(seen)
        error, d, l_adv = F.mse_loss(x_b, x), x.new_zeros(()), x.new_zeros(())
        l_hash = 1 - (hashed * self.code).mean()
        terms = {"reconstruction": error, "hash": l_hash}
        if self.p and self.distance != "none":
            d = terms[self.distance] = (self.lpips or ssim_distance)(x_b, x).mean()
        if self.w:
            l_adv = terms["adversarial"] = squared_error(self.discriminator(x_b), self.label, 0)
        l_g = self.a * error + self.a * self.p * d + self.b * l_hash + self.w * l_adv
        return l_g, terms

    def discriminator_loss(self, x_b: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """L_D, and the discriminator's accuracy: the share of 2N flags on the right side of 1/2.

        Args:
            x_b: (N,3,S,S), not clamped.
            x: (N,3,S,S) in [0,1].
            y: (N,C) float, the labels of x.
        """
        real, fake = self.discriminator(x).float(), self.discriminator(x_b.detach()).float()
        l_d = (squared_error(real, y, 0) + squared_error(fake, self.label, 1)) / 2
        return l_d, torch.cat([real[:, -1] < 0.5, fake[:, -1] >= 0.5]).float().mean()


def squared_error(found: Tensor, label: Tensor, flag: int) -> Tensor:
    """Mean of |found - [label; flag]|^2.

    Args:
        found: (N,C+1), the discriminator's outputs.
        label: (N,C) or (C,) for all.
        flag: 0 for a real picture, 1 for a generated one.
    """
    wanted: Tensor = F.pad(label, (0, 1), value=flag)
    return F.mse_loss(found, wanted.to(found.dtype).expand_as(found))


def learning_rate(epoch: int, epochs: int, lr: float) -> float:
    """``lr`` in the first half of ``epochs``, then falling; ``epoch`` is counted from 1."""
    falling = epochs // 2
    return lr * (1 - max(0, epoch - (epochs - falling)) / (falling + 1))


def train(
    view: AttackerView, gan: ConditionalGAN, *, epochs: int, lr: float, batch: int
) -> dict[str, list[float]]:
    """Train generator and discriminator in place; returns the mean of each loss in each epoch.

    The discriminator is trained in every third step, before the generator.

    Args:
        view: what the attacker sees.
        gan: the networks, on ``view.device``.
        epochs: see `learning_rate`.
        lr: see `learning_rate`.
        batch: images in one step.

    Raises:
        Diverged: a loss is NaN or infinite.
    """
    assert view.surrogate is not None
    if view.device.type == "cuda":  # on the CPU instance norm is slower on channels-last
        gan.to(memory_format=torch.channels_last)
    weights_g = [*gan.label_encoder.parameters(), *gan.generator.parameters()]
    weights_d = [*gan.discriminator.parameters()]
    adam_g, adam_d = (Adam(w, lr=lr, betas=BETAS, fused=True) for w in (weights_g, weights_d))
    trained = nn.ModuleList([gan.label_encoder, gan.generator, gan.discriminator])
    checkpoint = view.checkpoint("generator", networks=trained, adam_g=adam_g, adam_d=adam_d)
    found = checkpoint.load() or {"epoch": 0, "history": {}}
    history: dict[str, list[float]] = found["history"]
    steps = -(-len(view.images) // batch)
    for epoch in range(int(found["epoch"]), epochs):
        for group in (*adam_g.param_groups, *adam_d.param_groups):
            group["lr"] = learning_rate(epoch + 1, epochs, lr)
        order = torch.randperm(len(view.images), generator=view.generator(f"order {epoch}"))
        values: dict[str, list[Tensor]] = defaultdict(list)
        for step, part in enumerate(torch.split(order, batch)):
            x = to_unit(view.images[part].to(view.device, non_blocking=True))
            discriminated: dict[str, Tensor] = {}
            with view.autocast():
                x_b = gan(x)
                if step % 3 == 0 and gan.w:
                    y = view.labels[part].to(view.device, non_blocking=True).float()
                    loss, accuracy = gan.discriminator_loss(x_b, x, y)
                    discriminated = {"discriminator": loss, "discriminator accuracy": accuracy}
                    adam_d.zero_grad()
                    loss.backward(inputs=weights_d)  # type: ignore[no-untyped-call]
                    adam_d.step()
                loss, terms = gan.generator_loss(view.surrogate, x_b, x)
            adam_g.zero_grad()
            loss.backward(inputs=weights_g)  # type: ignore[no-untyped-call]
            adam_g.step()
            for name, value in (discriminated | terms).items():
                values[name].append(value.detach())
            view.progress("train generator", epoch * steps + step + 1, epochs * steps)
        means = {name: float(torch.stack(each).mean()) for name, each in values.items()}
        if bad := [name for name, mean in means.items() if not abs(mean) < float("inf")]:
            raise Diverged(
                f"the generator's {bad[0]} loss became {means[bad[0]]} in epoch {epoch + 1}: try "
                f"a smaller attack.lr than {lr:g}, or --precision float32."
            )
        for name, mean in means.items():
            history.setdefault(name, []).append(mean)
        checkpoint.keep(epoch=epoch + 1, history=history)
    return history
