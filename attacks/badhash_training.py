"""How BadHash's networks are trained: LabCLN on labels alone, then generator against discriminator.

The losses stand in badhash.py; here is what they are made of.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from hashbackdoor_bench import (
    AttackerView,
    Diverged,
    HashModel,
    lpips_for,
    sign,
    ssim_distance,
    to_unit,
)

from .badhash_networks import Discriminator, LabCLN, LabelMap, Painter

BETAS = (0.5, 0.999)


# ---- the label network --------------------------------------------------------------------------


def label_rows(labels: Tensor) -> Tensor:
    """The different rows of labels (N,C) with a tag, ascending: of one-hots, class C-1 first."""
    rows: Tensor = torch.unique(labels, dim=0)
    return rows[(rows > 0).any(1)]


def smooth(rows: Tensor, smoothing: float) -> Tensor:
    """Labels (N,C) 0/1 -> 1 - smoothing on every positive, smoothing / (C - 1) elsewhere."""
    return torch.where(rows > 0, 1 - smoothing, smoothing / max(rows.shape[1] - 1, 1))


def contrastive_loss(feature: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent of features (2B,d) of which rows 2i and 2i+1 belong together.

    A label drawn twice in a batch counts as a false negative, as in the released code.
    """
    unit = F.normalize(feature, dim=1)
    logits = (unit @ unit.T / temperature).fill_diagonal_(float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(unit), device=unit.device) ^ 1)


def label_losses(
    network: LabCLN, rows: Tensor, shown: Tensor, back: Tensor, smoothing: float
) -> dict[str, Tensor]:
    """The three terms of LabCLN's loss for one batch.

    Args:
        network: LabCLN.
        rows: (U,C) float, the different labels.
        shown: (u,) long, which of them this batch shows; the network sees each once.
        back: (B,) long, the batch as entries of ``shown``.
        smoothing: epsilon of the first view; the second is the label itself.
    """
    plain = rows[shown]
    pairs = torch.stack([smooth(plain, smoothing), plain], 1)  # (u,2,C)
    # A product, since the gradient of out[back] is summed in any order, by several threads.
    repeat = F.one_hot(back, len(shown)).to(plain.dtype)  # (B,u)
    feature, code, classes = (
        (repeat @ out.view(len(shown), -1)).view(2 * len(back), -1)
        for out in network(pairs.flatten(0, 1))
    )
    labels = plain[back].repeat_interleave(2, 0)  # (2B,C)
    return {
        "contrastive": contrastive_loss(feature),
        "classes": F.mse_loss(classes, labels),
        "quantisation": (sign(code) - code).square().sum() / (1e4 * len(back)),
    }


def train_label_network(
    view: AttackerView, *, bits: int, smoothing: float, steps: int
) -> dict[str, Tensor]:
    """LabCLN's state as ``network.*``, and the mean of each loss in ten parts as ``loss.*``."""
    rows = label_rows(view.labels).float().to(view.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(view.generator("label network").initial_seed())
        network = LabCLN(rows.shape[1], bits).to(view.device)
    optimizer = Adam(network.parameters(), lr=1e-4, betas=BETAS, fused=True)
    random = view.generator("label draws")
    draws = torch.randint(len(rows), (steps, 128), generator=random)
    # All is sent before the first step: a copy in a step would make it wait.
    shown, back = zip(*(torch.unique(draw, return_inverse=True) for draw in draws), strict=True)
    every = torch.split(torch.cat(shown).to(view.device), [len(x) for x in shown])
    batches = zip(every, torch.stack(back).to(view.device), strict=True)
    curves: dict[str, list[Tensor]] = defaultdict(list)
    for step, (some, places) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 * 0.1 ** ((2 * step >= steps) + (4 * step >= 3 * steps))
        losses = label_losses(network, rows, some, places, smoothing)
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros((), device=view.device)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, value in losses.items():
            curves[name].append(value.detach())
        view.progress("train label network", step + 1, steps)
    found = {f"network.{name}": value for name, value in network.state_dict().items()}
    return found | {f"loss.{name}": _in_ten(torch.stack(values)) for name, values in curves.items()}


@torch.no_grad()
def read_labels(found: Mapping[str, Tensor], labels: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Features (n,512) and codes (n,K) in (-1,1) of labels (n,C) by a trained label network."""
    with torch.random.fork_rng(devices=[]):
        network = LabCLN(labels.shape[1], bits)
    network.load_state_dict(parts(found, "network."))
    feature, code, _ = network(labels.float())
    return feature, code


def parts(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _in_ten(values: Tensor) -> Tensor:
    return torch.stack([part.mean() for part in values.tensor_split(min(10, len(values)))])


# ---- generator against discriminator ------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """All numbers of the game.

    Attributes:
        width: channels of the first layers.
        epochs: the learning rate is constant in the first half of them and falls in the second.
        lr: of Adam, for both.
        batch: images a step.
        distance: d: ``lpips``, ``ssim`` or ``none``.
        rescaled: LPIPS sees [-1,1].
        reconstruction: a.
        perceptual: p.
        hashing: b.
        adversarial: of L_adv.
        epsilon: largest change, in units of [0,1]; None: the output is the picture itself.
        relaxed: L_hash takes the surrogate's relaxed code, else its raw output.
        clamped: the surrogate sees the output clamped to [0,1].
    """

    width: int
    epochs: int
    lr: float
    batch: int
    distance: str
    rescaled: bool
    reconstruction: float
    perceptual: float
    hashing: float
    adversarial: float
    epsilon: float | None
    relaxed: bool
    clamped: bool

    def rate(self, epoch: int) -> float:
        """Learning rate in ``epoch``, counted from 1."""
        falling = self.epochs // 2
        return self.lr * (1 - max(0, epoch - (self.epochs - falling)) / (falling + 1))


def picture(x: Tensor, painted: Tensor, epsilon: float | None) -> Tensor:
    """What the generator makes of x (N,3,S,S), before it is clamped to [0,1]."""
    return painted if epsilon is None else x + epsilon * painted


class Game(nn.Module):
    """The networks, and the losses of a batch.

    Args:
        size: S.
        settings: its numbers.
        label: (C,) float, l*.
        feature: (1,512), r of l*.
        aim: (K,) c, ±1.
    """

    label: Tensor
    feature: Tensor
    aim: Tensor

    def __init__(
        self, size: int, settings: Settings, label: Tensor, feature: Tensor, aim: Tensor
    ) -> None:
        super().__init__()
        self.settings = settings
        self.condition = LabelMap(size, settings.width)
        self.painter = Painter(settings.width)
        self.discriminator = Discriminator(size, len(label), settings.width)
        self.lpips = (
            lpips_for(size, rescale=settings.rescaled) if settings.distance == "lpips" else None
        )
        for name, value in (("label", label), ("feature", feature), ("aim", aim)):
            self.register_buffer(name, value)

    def generate(self, x: Tensor) -> Tensor:
        """x (N,3,S,S) in [0,1] -> x_b (N,3,S,S), not clamped."""
        return picture(x, self.painter(x, self.condition(self.feature)), self.settings.epsilon)

    def perceptual(self, fake: Tensor, x: Tensor) -> Tensor:
        """d(x_b, x), a mean."""
        if self.lpips is not None:
            distances: Tensor = self.lpips(fake, x)
            return distances.mean()
        return ssim_distance(fake, x).mean()

    def generator_losses(self, surrogate: HashModel, fake: Tensor, x: Tensor) -> dict[str, Tensor]:
        """The terms of L_G without their weights; those of weight zero are left out."""
        own = self.settings
        seen = fake + (fake.clamp(0, 1) - fake).detach() if own.clamped else fake
        code = surrogate.relaxed(seen) if own.relaxed else surrogate(seen)
        losses = {
            "reconstruction": F.mse_loss(fake, x),
            "hash": 1 - (code * self.aim).mean(),
        }
        if own.distance != "none" and own.perceptual:
            losses[own.distance] = self.perceptual(fake, x)
        if own.adversarial:
            judged = self.discriminator(fake)
            losses["adversarial"] = F.mse_loss(judged, self._wanted(self.label, 0, judged))
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """L_G."""
        own = self.settings
        weights = {
            "reconstruction": own.reconstruction,
            own.distance: own.reconstruction * own.perceptual,
            "hash": own.hashing,
            "adversarial": own.adversarial,
        }
        return torch.stack([weights[name] * value for name, value in losses.items()]).sum()

    def discriminator_loss(self, fake: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """L_D, and the share of the 2N pictures whose flag is on the right side of 1/2."""
        real, false = self.discriminator(x).float(), self.discriminator(fake.detach()).float()
        loss = F.mse_loss(real, self._wanted(y, 0, real)) + F.mse_loss(
            false, self._wanted(self.label, 1, false)
        )
        right = torch.cat([real[:, -1] < 0.5, false[:, -1] >= 0.5]).float().mean()
        return loss / 2, right

    @staticmethod
    def _wanted(label: Tensor, flag: int, like: Tensor) -> Tensor:
        """[label; flag] for each row of ``like`` (N,C+1)."""
        row: Tensor = F.pad(label, (0, 1), value=flag)
        return row.to(like.dtype).expand_as(like)


def play(view: AttackerView, game: Game) -> dict[str, list[float]]:
    """Train the networks in place; the mean of each loss in each epoch.

    The discriminator moves in every third step, before the generator.

    Raises:
        Diverged: a loss is NaN or infinite; the checkpoint of the epoch before stands.
    """
    assert view.surrogate is not None
    own = game.settings
    if view.device.type == "cuda":  # on the CPU instance norm is slower on channels-last
        game.to(memory_format=torch.channels_last)
    drawing = [*game.condition.parameters(), *game.painter.parameters()]
    judging = list(game.discriminator.parameters())
    drawer = Adam(drawing, lr=own.lr, betas=BETAS, fused=True)
    judge = Adam(judging, lr=own.lr, betas=BETAS, fused=True)
    trained = nn.ModuleList([game.condition, game.painter, game.discriminator])
    kept = view.checkpoint("generator", networks=trained, drawer=drawer, judge=judge)
    found = kept.load() or {"epoch": 0, "history": {}}
    history: dict[str, list[float]] = found["history"]
    steps = -(-len(view.images) // own.batch)
    for epoch in range(int(found["epoch"]), own.epochs):
        for group in (*drawer.param_groups, *judge.param_groups):
            group["lr"] = own.rate(epoch + 1)
        order = torch.randperm(len(view.images), generator=view.generator(f"order {epoch}"))
        sums: dict[str, list[Tensor]] = defaultdict(list)
        for step, part in enumerate(torch.split(order, own.batch)):
            x = to_unit(view.images[part].to(view.device, non_blocking=True))
            with view.autocast():
                fake = game.generate(x)
                if step % 3 == 0 and own.adversarial:
                    y = view.labels[part].to(view.device, non_blocking=True).float()
                    loss, right = game.discriminator_loss(fake, x, y)
                    judge.zero_grad()
                    loss.backward(inputs=judging)  # type: ignore[no-untyped-call]
                    judge.step()
                    sums["discriminator"].append(loss.detach())
                    sums["discriminator accuracy"].append(right)
                losses = game.generator_losses(view.surrogate, fake, x)
            drawer.zero_grad()
            game.total(losses).backward(inputs=drawing)  # type: ignore[no-untyped-call]
            drawer.step()
            for name, value in losses.items():
                sums[name].append(value.detach())
            view.progress("train generator", epoch * steps + step + 1, own.epochs * steps)
        means = {name: float(torch.stack(values).mean()) for name, values in sums.items()}
        if bad := [name for name, mean in means.items() if not abs(mean) < float("inf")]:
            raise Diverged(
                f"the generator's {bad[0]} loss became {means[bad[0]]} in epoch {epoch + 1}; the "
                f"last good checkpoint is that of epoch {epoch}: try a smaller attack.lr than "
                f"{own.lr:g}, or --precision float32."
            )
        for name, mean in means.items():
            history.setdefault(name, []).append(mean)
        kept.save(epoch=epoch + 1, history=history)
    return history
