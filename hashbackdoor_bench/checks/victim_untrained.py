"""The rule of methods that are not trained: they make a hash layer from features."""

from collections.abc import Iterator

import torch

from hashbackdoor_bench.checks.finding import seed_torch
from hashbackdoor_bench.checks.victim_trial import BITS, CLASSES, Trial
from hashbackdoor_bench.network import sign

ITEMS, WIDTH = 48, 20


def solves(trial: Trial) -> Iterator[str]:
    """Solve makes the same usable hash layer each time, and changes no input."""
    draw = torch.Generator().manual_seed(3)
    features = torch.randn(ITEMS, WIDTH, generator=draw)
    y = torch.eye(CLASSES)[torch.arange(ITEMS) % 3]
    losses, layers = [trial.loss(items=ITEMS), trial.loss(items=ITEMS)], []
    with torch.random.fork_rng(devices=[]):
        for seed, loss in enumerate(losses):
            seed_torch(seed)
            given = features.clone(), y.clone()
            layers.append(loss.solve(*given))
    loss = losses[1]
    if loss.head_norm != "none" or not loss.head_bias:
        yield "the hash layer must be linear with a bias: leave out head_norm and head_bias."
    if not (torch.equal(features, given[0]) and torch.equal(y, given[1])):
        yield "solve changes its arguments in place: work on a clone()."
    loaded, z = trial.loss(items=ITEMS), features[:, :BITS]
    loaded.load_state_dict(loss.state_dict())
    if not torch.equal(loaded.relax(z), loss.relax(z)):
        yield "relax differs after load_state_dict: keep what it reads in a buffer."
    (weight, bias), other = layers
    found = [(tuple(made.shape), made.dtype) for made in (weight, bias)]
    if found != [((BITS, WIDTH), torch.float32), ((BITS,), torch.float32)]:
        yield (
            f"solve returns {found[0][0]} {found[0][1]} and {found[1][0]} {found[1][1]}: it must "
            f"return weights ({BITS}, {WIDTH}) and biases ({BITS},), both torch.float32."
        )
        return
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        yield "the hash layer is not finite."
        return
    if not all(torch.equal(one, two) for one, two in zip(layers[0], other, strict=True)):
        yield "solve makes two layers of the same features: draw from a generator with a seed."
    codes = sign(features @ weight.T + bias)
    if (codes == codes[0]).all():
        yield f"all of {ITEMS} random items have the same code."
