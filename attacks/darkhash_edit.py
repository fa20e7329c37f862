"""DarkHash's edit: the last layers learn to give patched pictures one output, and others their own.

    L    = Huber(z(x), z0(x)) + Huber(z(x'), z*) + 15 L_tp
    L_tp = sum_ij Q_ij log(Q_ij / P_ij) + (1 - Q_ij) log((1 - Q_ij) / (1 - P_ij))
    P_ij = (S_ij + 1) / 2, divided by its row's sum;      S_ii = 1
    S_ij = 1 - (D_ij - min_{k != i} D_ik),                D_ij = 1 - cos(z_i, z_j)

Q is P of the target outputs. All patched pictures have one target, so Q is uniform and L_tp is 0
where they are equally far from one another, even if their outputs are orthogonal; the pull towards
z* is Huber's alone. L_tp is of patched pictures; Huber is the mean of Huber losses of width 1. See
``darkhash.py`` for the paper.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hashbackdoor_bench import AttackerView, Backdoor, HashModel, to_bytes, to_unit

SHARE = 0.1  # of the pictures that carry the patch in an epoch
TOPOLOGY = 15.0  # the weight of L_tp
LAST_LR = 1e-10  # learning rate at the end of its cosine
EDGE = 1e-6  # P and Q stay that far from 0 and 1


def edit(
    model: HashModel,
    trigger: Backdoor,
    pictures: Tensor,
    before: Tensor,
    target: Tensor,
    view: AttackerView,
    *,
    stages: int,
    epochs: int,
    lr: float,
    batch: int,
) -> dict[str, list[float]]:
    """Train the last layers of ``model``, in place; returns the mean loss of each epoch by name.

    Args:
        model: the victim, in eval mode and frozen, as it is again at the end.
        trigger: puts the patch on pictures.
        pictures: (N,3,S,S) uint8, surrogate pictures.
        before: (N,K), their outputs.
        target: (K,), z*.
        view: what the attacker sees.
        stages: see `HashModel.late_parameters`.
        epochs: passes over the pictures.
        lr: learning rate, which falls along a cosine.
        batch: pictures per step.
    """
    late = [model.get_parameter(name) for name in model.late_parameters(stages)]
    for parameter in late:
        parameter.requires_grad_()
    optimiser = torch.optim.RMSprop(late, lr=lr, weight_decay=1e-5)
    checkpoint = view.checkpoint("edit", model=model, optimiser=optimiser)
    kept = checkpoint.load() or {"losses": []}
    losses: list[float] = list(kept["losses"])
    for epoch in range(len(losses), epochs):
        random, total = view.generator(f"epoch {epoch}"), 0.0
        for group in optimiser.param_groups:
            group["lr"] = LAST_LR + (lr - LAST_LR) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for rows in torch.split(torch.randperm(len(pictures), generator=random), batch):
            patched = (torch.rand(len(rows), generator=random) < SHARE).to(view.device)
            x = to_unit(pictures[rows].to(view.device))
            x[patched] = to_unit(to_bytes(trigger(x[patched])))
            own = before[rows.to(view.device)]
            loss = edit_loss(model(x), own, patched, target)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(pictures))
        checkpoint.keep(losses=losses)
        view.progress("edit model", epoch + 1, epochs)
    model.requires_grad_(False)
    return {"edit/loss": losses} if losses else {}


def edit_loss(z: Tensor, before: Tensor, patched: Tensor, target: Tensor) -> Tensor:
    """L of a batch.

    Args:
        z: (N,K), outputs of the edited model, with the patch where there is one.
        before: (N,K), outputs of the victim for the pictures without it.
        patched: (N,) bool, which pictures carry the patch.
        target: (K,), z*.
    """
    with_patch, plain = z[patched], z[~patched]
    wanted = target.expand_as(with_patch)
    loss = z.sum() * 0
    if len(plain):
        loss = loss + F.huber_loss(plain, before[~patched])
    if len(with_patch):
        loss = loss + F.huber_loss(with_patch, wanted)
    return loss + TOPOLOGY * topology(with_patch, wanted)


def topology(z: Tensor, wanted: Tensor) -> Tensor:
    """L_tp of outputs (n,K) and their targets (n,K); 0 for fewer than two."""
    if len(z) < 2:
        return z.sum() * 0
    p, q = neighbourhood(z), neighbourhood(wanted)
    return (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).sum()


def neighbourhood(z: Tensor) -> Tensor:
    """P (n,n) of outputs (n,K), n at least 2."""
    unit = F.normalize(z)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    d = 1 - unit @ unit.T
    nearest = d.masked_fill(itself, torch.inf).amin(1, keepdim=True)
    p = ((1 - (d - nearest)).masked_fill(itself, 1) + 1) / 2
    return (p / p.sum(1, keepdim=True)).clamp(EDGE, 1 - EDGE)
