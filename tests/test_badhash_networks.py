"""Networks of BadHash against its specification: shapes and numbers of parameters."""

import pytest
import torch
from torch import nn

from hashbackdoor_bench import ATTACKS

ATTACKS["badhash"]  # imports the package's files under their own names
from hashbackdoor_bench.attacks import badhash_labels, badhash_networks  # noqa: E402


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_those_of_the_released_code_at_224_px():
    assert count(badhash_labels.LabCLN(100, 64)) == 2_595_492
    encoder, generator = badhash_networks.LabelEncoder(224, 64), badhash_networks.Generator(64)
    assert count(encoder) == 13_044_440
    assert count(generator.out) == 1_809
    assert count(encoder) + count(generator) == 21_454_121
    assert count(badhash_networks.Discriminator(224, 100, 64)) == 16_213_952


@pytest.mark.parametrize("size", [32, 48, 64, 128, 224])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_multiple_of_16_goes_through_generator_and_discriminator(size: int, batch: int):
    x = torch.rand(batch, 3, size, size)
    label_map = badhash_networks.LabelEncoder(size, 8)(torch.randn(1, 512))
    assert label_map.shape == (1, 3, size, size)
    out = badhash_networks.Generator(8)(x, label_map)
    assert out.shape == x.shape
    assert out.abs().max() < 1
    assert badhash_networks.Discriminator(size, 5, 8)(out).shape == (batch, 6)


def test_layer_shapes_are_those_of_the_specification():
    shapes: list[tuple[int, ...]] = []
    generator = badhash_networks.Generator(64)
    for layer in generator.body:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | badhash_networks.Residual):
            layer.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape[1:])))
    generator(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    # at 32 px; 224, 112, 56 in the table
    assert shapes == [(64, 32, 32), (128, 16, 16), *[(256, 8, 8)] * 7, (128, 16, 16), (64, 32, 32)]
    seen: list[int] = []
    discriminator = badhash_networks.Discriminator(224, 10, 8)
    for layer in discriminator:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda m, i, out: seen.append(out.shape[-1]))
    discriminator(torch.rand(1, 3, 224, 224))
    assert seen == [112, 56, 28, 14, 7, 1]


def test_discriminator_weights_have_spectral_norm_one_except_the_last():
    torch.manual_seed(0)
    discriminator = badhash_networks.Discriminator(32, 5, 8)
    for _ in range(30):  # power iterations
        discriminator(torch.rand(1, 3, 32, 32))
    *normed, last = [layer for layer in discriminator if isinstance(layer, nn.Conv2d)]
    for layer in normed:
        largest = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        assert largest == pytest.approx(1, abs=0.05)
    assert last.bias is None
    assert not hasattr(last, "parametrizations")
