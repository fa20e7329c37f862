"""Whether a loss teaches labels to codes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hashbackdoor_bench.checks.victim_trial import Trial, value
from hashbackdoor_bench.network import hash_layer, sign

MARGIN = 0.25  # see `teaches`


def teaches(trial: Trial) -> Iterator[str]:
    """Descending it makes codes keep to the labels that it was given.

    48 items carry two independent pairs of classes, equally well seen in their features, and a hash
    layer is trained on the one and on the other (75 steps of Adam). How well codes keep to labels
    is the chance that two items of one class are nearer to each other than two of different
    classes, a tie counting half. For the labels of training it must be .25 above that for the other
    labels, half of the .51 that perfect codes reach, in both trainings: a loss that looks at no
    label gains in one what it lacks in the other. How many bits tell classes apart is left to the
    method: of 16, GreedyHash takes three to six.

    Measured: the victims here in all variants .50 and more, GreedyHash (alpha .1, .3 and 1) .47,
    DCH, DPN and DTSH .50, OrthoHash .44; a loss of swapped similarity -.09, of the wrong sign .08
    and less, without labels .00 and less. Over six draws of data and weights, the former stay at
    .31 and more, the latter at .20 and less.
    """
    first, second = torch.arange(48) % 2, torch.arange(48) // 2 % 2
    for kind, other in ((first, second), (second, first)):
        code = _trained(trial, first, second, kind)
        margin = _keeps_to(code, kind) - _keeps_to(code, other)
        if not margin > MARGIN:
            yield (
                f"after 75 steps codes keep to the labels {margin:.2f} better than to labels it "
                f"was not given, which must be more than {MARGIN}: look at the sign of the loss, "
                "and at how similar pairs are found."
            )
            return


def _trained(trial: Trial, first: Tensor, second: Tensor, kind: Tensor) -> Tensor:
    """Codes (48,16) of items with classes ``first`` and ``second``, trained on labels ``kind``."""
    bits, items = 16, len(kind)
    draw = torch.Generator().manual_seed(5)
    y = torch.eye(2)[kind]
    x = 0.3 * torch.randn(items, 8, generator=draw)
    x[:, 0] += 3  # what all have in common decides the bits before training
    x[:, 1] += 0.6 * (2 * first - 1)
    x[:, 2] += 0.6 * (2 * second - 1)
    loss = trial.loss(bits, 2, items)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
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


def _keeps_to(code: Tensor, kind: Tensor) -> float:
    """See `teaches`: code (n,K) of ±1, kind (n,) -> a chance."""
    distance = -code @ code.T
    alike = kind[:, None] == kind
    near = distance[alike & ~torch.eye(len(kind), dtype=torch.bool)][:, None]
    far = distance[~alike]
    return float((near < far).float().mean() + (near == far).float().mean() / 2)
