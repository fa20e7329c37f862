"""BadHash's label network (LabCLN): a feature and a code of each label, from label vectors alone.

    L   = NT-Xent(f) + |c - l|^2 + |sign h - h|^2 / 10^4

f, h and c are the feature, code and classes of two views of each label l: the smoothed label and
the label itself. NT-Xent pulls the features of the two views together. See badhash.py for paper and
code.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from hashbackdoor_bench import AttackerView, sign

from .badhash_networks import FEATURE

BETAS = (0.5, 0.999)  # Adam's betas, for all networks of BadHash


class LabCLN(nn.Module):
    """Label vectors -> a feature, a code, and a reconstruction of the label.

    Args:
        classes: C.
        bits: K.
    """

    def __init__(self, classes: int, bits: int) -> None:
        super().__init__()
        self.feature = nn.Sequential(nn.Linear(classes, 4096), nn.ReLU(), nn.Linear(4096, FEATURE))
        self.code = nn.Sequential(nn.Linear(FEATURE, bits), nn.Tanh())
        self.classes = nn.Sequential(nn.Linear(FEATURE, classes), nn.Sigmoid())

    def forward(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """labels (N,C) -> feature (N,512), code (N,K) in (-1,1), classes (N,C) in (0,1)."""
        feature = self.feature(labels)
        return feature, self.code(feature), self.classes(feature)


def label_rows(labels: Tensor) -> Tensor:
    """The distinct non-zero rows of 0/1 labels (N,C), ascending; of one-hot rows C-1 is first."""
    # The first class is the highest bit, so the order of packed rows is that of the rows.
    packed = np.packbits(labels.numpy().astype(bool), axis=1)
    width = packed.shape[1]
    rows = sorted(set(packed.view(f"V{width}").ravel().tolist()) - {bytes(width)})  # bytes
    found = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, width)
    bits = np.unpackbits(found, axis=1, count=labels.shape[1])
    return torch.from_numpy(bits).to(labels.dtype)


def smooth(rows: Tensor, smoothing: float) -> Tensor:
    """Labels (N,C) 0/1 -> 1 - smoothing on every positive, smoothing / (C - 1) elsewhere."""
    return torch.where(rows > 0, 1 - smoothing, smoothing / max(rows.shape[1] - 1, 1))


def contrastive_loss(feature: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent of features (2B,d), of which rows 2i and 2i+1 belong together.

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
        rows: (U,C) float, the distinct labels.
        shown: (u,) long, which of them are in this batch; the network is run once on each of them.
        back: (B,) long, the batch as entries of ``shown``.
        smoothing: label smoothing of the first view; the second view is the label itself.
    """
    plain = rows[shown]
    pairs = torch.stack([smooth(plain, smoothing), plain], 1)  # (u,2,C)
    # A product instead of out[back], whose gradient several threads would sum in a random order.
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
    """Train LabCLN: its state as ``network.*``, and the mean losses of ten parts as ``loss.*``.

    Args:
        view: what the attacker sees.
        bits: K.
        smoothing: see `label_losses`.
        steps: training steps; each has 128 labels, drawn with replacement.
    """
    rows = label_rows(view.labels).float().to(view.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(view.generator("label network").initial_seed())
        network = LabCLN(rows.shape[1], bits).to(view.device)
    optimizer = Adam(network.parameters(), lr=1e-4, betas=BETAS, fused=True)
    draws = torch.randint(len(rows), (steps, 128), generator=view.generator("label draws"))
    # All batches are sent to the device before the first step, so that no step waits for a copy.
    shown, back = zip(*(torch.unique(draw, return_inverse=True) for draw in draws), strict=True)
    sent = torch.split(torch.cat(shown).to(view.device), [len(part) for part in shown])
    batches = zip(sent, torch.stack(back).to(view.device), strict=True)
    curves: dict[str, list[Tensor]] = defaultdict(list)
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 1e-4 * 0.1 ** ((2 * step >= steps) + (4 * step >= 3 * steps))
        losses = label_losses(network, rows, *batch, smoothing)
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros((), device=view.device)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for name, value in losses.items():
            curves[name].append(value.detach())
        view.progress("train label network", step + 1, steps)
    found = {f"network.{name}": value for name, value in network.state_dict().items()}
    for name, values in curves.items():
        tenths = torch.stack(values).tensor_split(min(10, steps))
        found[f"loss.{name}"] = torch.stack([part.mean() for part in tenths])
    return found


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
