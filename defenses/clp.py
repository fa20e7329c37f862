"""CLP: prunes the channels that amplify their input most, without any data.

Zheng, Tang, Li and Liu, "Data-free Backdoor Removal based on Channel Lipschitzness", ECCV 2022.
https://arxiv.org/abs/2208.03111, code: https://github.com/rkteddy/channel-Lipschitzness-based-pruning

    sigma_k = largest singular value of W_k (c_in, h w) · |gamma_k| / sqrt(var_k + eps)
    prune k of a layer where sigma_k > mean + u std              then gamma_k = beta_k = 0

W_k is channel k of a convolution, gamma, beta and var are of the batch norm that follows it. Of n
values none lies more than (n - 1) / sqrt(n) standard deviations above the mean, so at u = 3 a layer
of 10 channels or fewer never loses one.

Differs from the authors: their code pairs each batch norm with the convolution declared before it,
which in pre-activation networks is another; here a running image shows which one feeds it. Without
a following batch norm the factor is 1, and the weights and bias of a pruned channel become zero;
their code prunes nothing there.
"""

import copy

import torch
from torch import Tensor, nn

from hashbackdoor_bench import DEFENSES, Assumes, Channel, DefenderView, Defense, HashModel, check


@DEFENSES.register
class Clp(Defense):
    """Channel Lipschitz pruning.

    Args:
        u: standard deviations above the mean of a layer from which on a channel is pruned.
    """

    published = "CLP"
    assumes = Assumes(sees=frozenset({"weights"}), needs=frozenset({"channels"}))
    strength = "u"
    grid = (10.0, 7.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0)

    def __init__(self, *, u: float = 3.0) -> None:
        check("defense.u", u, 0)
        self.u = u

    @torch.no_grad()
    def repair(self, view: DefenderView) -> HashModel:
        """See `Defense.repair`."""
        model = copy.deepcopy(view.model)
        for channel in model.channels():
            sigma = lipschitz(channel)
            if len(sigma) < 2:  # one channel has no standard deviation
                continue
            pruned = sigma > sigma.mean() + self.u * sigma.std()
            target = channel.conv if not _normed(channel) else channel.norm
            assert isinstance(target, nn.Conv2d | nn.BatchNorm2d)
            target.weight[pruned] = 0
            if target.bias is not None:
                target.bias[pruned] = 0
        return model


def _normed(channel: Channel) -> bool:
    """Whether a batch norm with weights of its own follows."""
    return isinstance(channel.norm, nn.BatchNorm2d) and channel.norm.affine


def lipschitz(channel: Channel) -> Tensor:
    """sigma (c_out,) of a convolution with its normalisation."""
    kernel = channel.conv.weight.flatten(2)  # (c_out, c_in / groups, h w)
    sigma: Tensor = torch.linalg.matrix_norm(kernel.float(), ord=2)
    norm = channel.norm
    if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.running_var is not None:
        sigma = sigma * norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
    return sigma
