"""The training loop, with its optimiser, schedule and checkpoints; and encoding.

Images stay uint8 until they are in a batch on the device; augmentation runs on the whole batch.
Every random number comes from a generator of (seed, purpose, epoch). So a training that continues
from the checkpoint of an epoch needs no random state; on the CPU its weights are equal bit for bit.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from hashbackdoor_bench.api import HashLoss, derive_seed, generator, to_unit
from hashbackdoor_bench.checkpoint import Checkpoint
from hashbackdoor_bench.errors import Diverged
from hashbackdoor_bench.network.augmentation import augment, centre_crop, draws_of
from hashbackdoor_bench.network.model import FrozenHead, HashModel
from hashbackdoor_bench.network.replaying import Replayed, worth_replaying
from hashbackdoor_bench.network.training_set import Batch, TrainingSet, batches, held
from hashbackdoor_bench.network.training_step import TrainStep, autocast, plain_backward
from hashbackdoor_bench.progress import OF_EPOCHS, Progress, silent
from hashbackdoor_bench.spec import Recipe

# The fully connected layers before the hash layer: timm's name in VGG, torchvision's in AlexNet.
CONNECTED = ("pre_logits", "classifier")


def fit(
    model: HashModel | FrozenHead,
    loss: HashLoss,
    data: TrainingSet,
    recipe: Recipe,
    *,
    seed: str,
    size: int,
    checkpoint: Path | None = None,
    progress: Progress = silent,
    stage: str = "train",
    backward: Callable[[TrainStep], Tensor] | None = None,
) -> list[float]:
    """Train ``model`` and ``loss`` in place; returns the mean loss of each epoch.

    Args:
        model: the network, on the device where training runs.
        loss: the victim's loss, on the same device.
        data: the training list; an epoch goes through its `shown` items. In a frozen recipe its
            images and its overlay are the features (T,F) and (P,F) of those.
        recipe: hyper-parameters of training; its ``precision`` may be ``auto``.
        seed: seed of order, augmentation and dropout.
        size: S.
        checkpoint: file that is written at the end of an epoch, if the last one is ten seconds old;
            if it exists, training continues from it.
        progress: called after each step.
        stage: name of this training for ``progress``.
        backward: makes the gradients of a step and returns its loss, see `TrainStep`; None:
            `plain_backward`, or the same from a recording where that is faster.

    Raises:
        Diverged: a loss is NaN or infinite.
    """
    device = next(model.parameters()).device
    data = data.to(device)
    model.train().to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, loss, recipe)
    rates = _rates(optimizer)
    items, size_of_batch = data.shown(), recipe.batch_size
    steps = steps_of(len(items), size_of_batch, drop_last=loss.drop_last)
    total = recipe.epochs * steps
    if backward is None:
        seen = 0 if recipe.frozen else size_of_batch * size**2
        backward = Replayed(model) if worth_replaying(model, seen) else plain_backward
    kept = Checkpoint(checkpoint, model=model, loss=loss, optimizer=optimizer)
    found = kept.load() or {"epoch": 0, "history": []}
    first, history = int(found["epoch"]), list(found["history"])
    step = first * steps
    progress(stage, step, total)
    for epoch in range(first, recipe.epochs):
        began, at = time.perf_counter(), {"epoch": epoch + 1, "epochs": recipe.epochs}
        loss.on_epoch(epoch)
        order = items[torch.randperm(len(items), generator=generator(seed, "order", epoch))]
        order = data.arranged(order)[: steps * size_of_batch]
        draws = torch.rand(
            len(data.labels), draws_of(recipe.augment), generator=generator(seed, "augment", epoch)
        )
        chance = generator(seed, "backward", epoch)
        losses = torch.zeros(steps, device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(seed, "dropout", epoch))
            for batch, given in enumerate(batches(data, order, draws, size_of_batch, device)):
                if recipe.frozen:
                    x = data.gather(*given.stored).to(device, non_blocking=True)
                else:
                    x = pixels(data, given, recipe.augment, size, device)
                factor = _schedule(recipe, step / total)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
                y = data.labels[given.index].float()
                optimizer.zero_grad(set_to_none=True)
                losses[batch] = backward(
                    TrainStep(model, loss, x, y, given.index, step, chance, recipe.precision)
                ).detach()
                optimizer.step()
                step += 1
                if batch + 1 < steps:
                    on_cpu = device.type == "cpu"  # a GPU would wait for float()
                    facts = {"loss": float(losses[batch])} if on_cpu else {}
                    progress(stage, step, total, **at, **facts)
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            raise Diverged(
                f"the loss became {losses[bad[0]].item()} in step "
                f"{step - steps + int(bad[0])} (epoch {epoch + 1}): try a smaller --lr than "
                f"{recipe.lr:g}, or --precision float32."
            )
        history.append(float(losses.mean()))
        ended = zip(OF_EPOCHS, (*_rates(optimizer), time.perf_counter() - began), strict=True)
        progress(stage, step, total, **at, loss=history[-1], **dict(ended))
        kept.keep(epoch=epoch + 1, history=history)
    model.eval()
    return history


def steps_of(items: int, batch: int, *, drop_last: bool) -> int:
    """Number of optimiser steps in an epoch.

    Args:
        items: number of images.
        batch: number of images in a step; the last step may have fewer, but not only one, which has
            no pairs and no variance, unless there is no other step.
        drop_last: whether images that don't fill a step are left out.
    """
    steps, rest = divmod(items, batch)
    return steps + bool(rest and (not steps or not (rest == 1 or drop_last)))


@torch.no_grad()
def solve(head: nn.Module, loss: HashLoss, data: TrainingSet) -> list[float]:
    """Set the hash layer of a method that is not trained, in place; returns no losses.

    Args:
        head: the hash layer, linear.
        loss: the method.
        data: the training list; its images and its overlay are features (T,F) and (P,F).
    """
    index = data.shown()
    features = data.gather(index, *data.poisoned(index))
    device = next(head.parameters()).device
    made = loss.cpu().solve(features.cpu(), data.labels[index].float().cpu())
    for old, new in zip(head.parameters(), made, strict=True):
        old.copy_(new)
    loss.to(device)
    return []


def pixels(data: TrainingSet, batch: Batch, kind: str, size: int, device: torch.device) -> Tensor:
    """x (N,3,S,S) in [0,1] on the device: the images of a batch, augmented and stamped."""
    images = data.gather(*batch.stored).to(device, non_blocking=True)
    x = augment(images, batch.draws, kind, size)
    rows = batch.rows
    if len(rows):
        if data.frozen:
            x[rows] = to_unit(centre_crop(images[rows], size))
        if data.stamp is not None:
            x[rows] = data.stamp(x[rows], batch.slots)
    return x.contiguous(memory_format=torch.channels_last)


def _optimizer(
    model: HashModel | FrozenHead, loss: HashLoss, recipe: Recipe
) -> torch.optim.Optimizer:
    head = [*model.head.parameters(), *loss.parameters()]
    if recipe.deep_head:
        for name in CONNECTED:
            layers = getattr(model.backbone, name, None)
            head += layers.parameters() if isinstance(layers, nn.Module) else []
    known = {id(weight) for weight in head}
    groups = [
        {"params": [w for w in model.backbone.parameters() if id(w) not in known], "lr": recipe.lr},
        {"params": head, "lr": recipe.head_lr},
    ]
    decay = recipe.weight_decay
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=recipe.lr, weight_decay=decay)
    # One kernel instead of a dozen. On the CPU it would change rounding and save only 4 % of a
    # step.
    fused = next(model.parameters()).device.type == "cuda"
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=decay, fused=fused
        )
    return torch.optim.Adam(groups, lr=recipe.lr, weight_decay=decay, fused=fused)


def _rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The learning rates of the backbone and the hash layer."""
    return [group["lr"] for group in optimizer.param_groups]


def _schedule(recipe: Recipe, done: float) -> float:
    """Factor on the learning rates after the share ``done`` of all steps."""
    if recipe.schedule == "constant":
        return 1.0
    rise = 0.25
    if done < rise:
        return 0.04 + 0.96 * done / rise
    return 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))


@torch.inference_mode()
def encode(
    model: HashModel,
    images: Tensor,
    *,
    size: int,
    precision: str = "auto",
    trigger: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 250,
    progress: Progress = silent,
    stage: str = "encode",
    features: bool = False,
) -> Tensor:
    """Codes of stored images, centre-cropped: (N,3,h,w) uint8 -> (N,K) int8 of ±1, on the CPU.

    Args:
        model: the network, in eval mode.
        images: stored images.
        size: S.
        precision: precision with which the network was trained.
        trigger: x (n,3,S,S) in [0,1] -> x with the trigger, in 8-bit levels.
        batch_size: images per batch.
        progress: called after each batch.
        stage: name of this encoding for ``progress``.
        features: whether to return the features (N,F) float32 instead.
    """
    device = next(model.parameters()).device
    function = model.features if features else model.code
    images, parts = held(images, device), []
    for start in range(0, len(images), batch_size):
        batch = centre_crop(images[start : start + batch_size], size).to(device)
        x = to_unit(batch)
        if trigger is not None:
            x = trigger(x)
        with autocast(device, precision):
            parts.append(function(x.contiguous(memory_format=torch.channels_last)))
        progress(stage, min(start + batch_size, len(images)), len(images))
    # All are copied to the CPU together: a copy per batch would make a GPU wait.
    return torch.cat(parts).cpu() if parts else torch.empty(0, 0, dtype=torch.int8)
