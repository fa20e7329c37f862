"""Fine-pruning: channels that clean images leave dormant are pruned, and the rest is tuned.

Liu, Dolan-Gavitt and Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural
Networks", RAID 2018. https://arxiv.org/abs/1805.12185, code:
https://github.com/kangliucn/Fine-pruning-defense

    A_k = mean over clean images and positions of max(0, o_k)     o: output of the last convolution
    prune in ascending order of A_k, 1 % of the channels at a time,
        while MAP >= (1 - tolerance) · MAP before                   MAP: of the clean images
    then min L(clean images)                                        the pruned channels stay zero

o is taken after a batch or group norm that follows, and pruning makes weights and bias of a channel
zero, in that norm or else in the convolution. The last convolution is that of the last stage: fully
connected layers that timm writes as convolutions come later. The tuning is that of `finetune`.

Differs from the authors: they leave open by how much accuracy on a validation set may fall. Here
MAP among the defender's own images may fall by 10 %, as accuracy may in BackdoorBench, which
measures it on the test set and keeps the step that broke the limit. In a residual network a pruned
channel still has what the shortcut adds.
"""

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    HashModel,
    TrainStep,
    check,
    plain_backward,
    to_unit,
    tuning_recipe,
)

TOGETHER = 64  # images in one forward pass


@DEFENSES.register
class FinePrune(Defense):
    """Pruning of dormant channels, and more training on clean images.

    Args:
        tolerance: share of MAP among the clean images that pruning may cost.
        step: share of the channels that are pruned at a time.
        epochs: passes over the clean images afterwards; 0: none.
    """

    published = "Fine-pruning"
    version = 2
    assumes = Assumes(per_class=2, sees=frozenset({"weights"}), needs=frozenset({"channels"}))
    strength = "tolerance"
    grid = (0.0, 0.02, 0.05, 0.1, 0.2)
    quick: ClassVar[Mapping[str, object]] = {"step": 0.25, "epochs": 1}

    def __init__(self, *, tolerance: float = 0.1, step: float = 0.01, epochs: int = 100) -> None:
        check("defense.tolerance", tolerance, 0, 1)
        check("defense.step", step, 1e-6, 1)
        check("defense.epochs", epochs, 0, 10_000)
        self.tolerance, self.step, self.epochs = tolerance, step, epochs

    def repair(self, view: DefenderView) -> HashModel:
        """See `Defense.repair`."""
        name, gone = self.pruned(view)
        model = without(view.model, name, gone)
        if not self.epochs:
            return model

        def backward(step: TrainStep) -> Tensor:
            value = plain_backward(step)
            for parameter in step.model.get_submodule(name).parameters(recurse=False):
                assert parameter.grad is not None
                parameter.grad[gone] = 0  # zero stays zero, whatever the optimiser
            return value

        recipe = tuning_recipe(view.recipe, epochs=self.epochs)
        return view.fit(view.clean, recipe, model=model, backward=backward)

    def pruned(self, view: DefenderView) -> tuple[str, Tensor]:
        """The layer whose channels are pruned, and the numbers (p,) long of those that are."""
        name = last_layer(view.model)
        order = activity(view, name).argsort(stable=True)
        at_once = max(1, round(self.step * len(order)))
        least, count = (1 - self.tolerance) * view.map(), 0
        while (more := count + at_once) < len(order):
            if not view.map(without(view.model, name, order[:more])) >= least:  # NaN stops too
                break
            count = more
        return name, order[:count]


def last_layer(model: HashModel) -> str:
    """The name of the last convolution of the last stage, or of the norm behind it."""
    weight = next(model.parameters())
    image = torch.zeros(1, 3, model.size, model.size, device=weight.device)
    stages, channels = len(model.maps(image)), model.channels()
    last = ([one for one in channels if one.stage < stages] or channels)[-1]
    normed = isinstance(last.norm, nn.BatchNorm2d | nn.GroupNorm) and last.norm.affine
    layer = last.norm if normed else last.conv
    assert layer is not None
    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
    return names[layer]


@torch.no_grad()
def activity(view: DefenderView, name: str) -> Tensor:
    """A (c,) of the channels of a layer of ``view.model``, on the CPU."""
    sums: list[Tensor] = []
    hook = view.model.get_submodule(name).register_forward_hook(
        lambda module, given, out: sums.append(out.relu().mean((2, 3)).sum(0).cpu())
    )
    for part in torch.split(view.clean.images, TOGETHER):
        view.model.features(to_unit(part.to(view.device)))
    hook.remove()
    return torch.stack(sums).sum(0) / len(view.clean)


@torch.no_grad()
def without(model: HashModel, name: str, gone: Tensor) -> HashModel:
    """A copy of a network in which some channels (p,) of a layer are zero."""
    made = copy.deepcopy(model)
    for parameter in made.get_submodule(name).parameters(recurse=False):
        parameter[gone] = 0
    return made
