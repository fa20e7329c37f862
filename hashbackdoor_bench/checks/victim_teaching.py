"""The rule that a loss makes codes follow their labels."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hashbackdoor_bench.checks.finding import seed_torch
from hashbackdoor_bench.checks.victim_trial import Trial, value
from hashbackdoor_bench.network import hash_layer, sign

MARGIN = 0.25  # see `teaches`


def teaches(trial: Trial) -> Iterator[str]:
    """Training with the loss makes codes follow the labels.

    48 items have two independent labels of two classes each, which are equally visible in their
    features. A hash layer is trained once on the first and once on the second labels (75 steps of
    Adam). Codes follow labels by the chance that two items of one class are nearer to each other
    than two items of different classes, where a tie counts half. In both trainings this chance must
    be .25 higher for the labels of training than for the other labels; perfect codes reach .51. A
    loss that ignores labels gains in one training what it loses in the other. The rule doesn't
    count how many bits tell the classes apart: GreedyHash uses three to six of 16.

    Measured: all variants of the victims here reach .50 or more, GreedyHash (alpha .1, .3 and 1)
    .47, DCH, DPN and DTSH .50, OrthoHash .44; a loss with swapped similarity reaches -.09, with the
    wrong sign at most .08, without labels at most .00. Over six draws of data and weights the
    former stay at .31 or more, the latter at .20 or less.
    """
    first, second = torch.arange(48) % 2, torch.arange(48) // 2 % 2
    for kind, other in ((first, second), (second, first)):
        code = _trained(trial, first, second, kind)
        margin = _follows(code, kind) - _follows(code, other)
        if not margin > MARGIN:
            yield (
                f"after 75 steps codes follow the labels only {margin:.2f} better than labels that "
                f"were not given, and it must be more than {MARGIN}: check the sign of the loss "
                "and how it finds similar pairs."
            )
            return


def _trained(trial: Trial, first: Tensor, second: Tensor, kind: Tensor) -> Tensor:
    """Codes (48,16) of items with classes ``first`` and ``second``, trained on labels ``kind``."""
    bits, items = 16, len(kind)
    draw = torch.Generator().manual_seed(5)
    y = torch.eye(2)[kind]
    x = 0.3 * torch.randn(items, 8, generator=draw)
    x[:, 0] += 3  # a large common part, so that all codes are nearly equal before training
    x[:, 1] += 0.6 * (2 * first - 1)
    x[:, 2] += 0.6 * (2 * second - 1)
    loss = trial.loss(bits, 2, items)
    with torch.random.fork_rng(devices=[]):
        seed_torch(5)
        layer = hash_layer(8, bits, loss)
    optimizer = torch.optim.Adam([*layer.parameters(), *loss.parameters()], lr=0.05)
    for epoch in range(25):
        loss.on_epoch(epoch)
        order = torch.randperm(items, generator=draw)
        for number, index in enumerate(torch.split(order, 16)):
            out = value(loss, layer(x[index]), y[index], index, 3 * epoch + number)
            optimizer.zero_grad()
            torch.autograd.backward(out)
            optimizer.step()
    with torch.no_grad():
        return sign(layer.eval()(x))


def _follows(code: Tensor, kind: Tensor) -> float:
    """The chance that `teaches` describes, of code (n,K) of ±1 and classes ``kind`` (n,)."""
    distance = -code @ code.T
    same_class = kind[:, None] == kind
    near = distance[same_class & ~torch.eye(len(kind), dtype=torch.bool)][:, None]
    far = distance[~same_class]
    return float((near < far).float().mean() + (near == far).float().mean() / 2)
