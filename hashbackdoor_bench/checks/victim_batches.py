"""What a loss promises for any batch, at any step, and of the random numbers that it draws."""

from collections.abc import Iterator

import torch

from hashbackdoor_bench.checks.finding import advanced, global_states, seeded
from hashbackdoor_bench.checks.victim_trial import Trial, value

STEPS, EPOCHS = 200_000, 2_000  # more than any training here has


def draws(trial: Trial) -> Iterator[str]:
    """It draws random numbers from torch alone, and seeds nothing."""
    ends, drawn = [], list[str]()
    for seed in (1, 2):
        with seeded(seed):
            before = global_states()
            loss = trial.method(*trial.sizes, **trial.given)
            loss.on_epoch(1)
            value(loss, *trial.batch(), 1)
            loss.items(*trial.batch(), 1)
            ends.append(torch.get_rng_state())
            drawn += advanced(before)
    for library in dict.fromkeys(drawn):
        if library != "torch":
            yield (
                f"it draws from {library}'s global random numbers, which the run doesn't seed: "
                "draw with torch."
            )
    if torch.equal(*ends):
        yield (
            "it seeds torch's global random numbers, from which other parts of the training draw: "
            "give a torch.Generator of its own a seed."
        )


def odd_batches(trial: Trial) -> Iterator[str]:
    """Odd batches give a finite loss and a finite gradient."""
    index = trial.batch()[2]
    for scale in (1.0, 0.0, 1e4):
        for name, y in trial.odd().items():
            z = (scale * trial.batch()[0].detach())[: len(y)].requires_grad_()
            out = value(trial.loss(), z, y, index[: len(y)], 1000)
            torch.autograd.backward(out)
            where = f"on {name}, with z around {scale:g},"
            if not torch.isfinite(out):
                yield f"{where} the loss is {out.item()}: use logsumexp, softplus or clamp."
            elif z.grad is None or not torch.isfinite(z.grad).all():
                yield (
                    f"{where} the gradient is not finite: the unused branch of a torch.where must "
                    "be finite too."
                )


def unordered(trial: Trial) -> Iterator[str]:
    """The loss doesn't depend on the order of the batch."""
    z, y, index = trial.batch()
    found = []
    for rows in (torch.arange(len(z)), torch.arange(len(z)).flip(0)):
        loss, batch = trial.loss(), (z[rows], y[rows], index[rows])
        with seeded(1):
            before = global_states()
            whole, items = value(loss, *batch, 300), loss.items(*batch, 300)
            if advanced(before):  # a row gets other numbers in another order
                return
        found.append((whole, None if items is None else items[rows]))
    (one, items), (other, mixed) = found
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-6):
        yield (
            f"the loss depends on the order of the batch: it is {one.item():.6g}, and "
            f"{other.item():.6g} in reverse order. Treat all images, or pairs of them, alike."
        )
    elif (
        items is not None
        and mixed is not None
        and not torch.allclose(items, mixed, rtol=1e-4, atol=1e-6)
    ):
        yield (
            "items depend on the order of the batch: row i must be the loss of image i, in any "
            "order."
        )


def late(trial: Trial) -> Iterator[str]:
    """The loss and its gradient stay finite in a long training."""
    for step, epoch in ((STEPS, 0), (0, EPOCHS), (STEPS, EPOCHS)):
        loss, (z, y, index) = trial.loss(), trial.batch()
        loss.on_epoch(epoch)
        out = value(loss, z, y, index, step)
        torch.autograd.backward(out)
        if not torch.isfinite(out) or z.grad is None or not torch.isfinite(z.grad).all():
            yield (
                f"at step {step} of epoch {epoch} the loss is {out.item()}, or its gradient isn't "
                "finite: bound what grows with step and epoch."
            )
            return
