"""What more than one repair of a trained network uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hashbackdoor_bench.spec import Recipe


def tuning_recipe(recipe: Recipe, *, epochs: int, rate: float = 1.0) -> Recipe:
    """How to train a victim further on a few images.

    A network that was trained from scratch is tuned by SGD with learning rate .01, momentum .9 and
    weight decay 5e-4, as in BackdoorBench, and one-cycle; a network that started from pretrained
    weights by its own recipe, since .01 would be a thousand times its learning rate.

    Args:
        recipe: how the victim was trained.
        epochs: passes over the images.
        rate: factor on the learning rates.
    """
    if recipe.finetunes:
        return replace(recipe, epochs=epochs, lr=rate * recipe.lr, head_lr=rate * recipe.head_lr)
    return replace(
        recipe,
        epochs=epochs,
        optimizer="sgd",
        lr=0.01 * rate,
        head_lr=0.01 * rate,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="onecycle",
    )


@contextmanager
def uncounted(model: nn.Module) -> Iterator[None]:
    """Within it, batch norms normalise as before, but a batch doesn't change their statistics.

    For a second pass of one training step: its images count once.
    """
    counting = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    for module in counting:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in counting:
            module.track_running_stats = True
