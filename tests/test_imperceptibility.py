import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.metrics import imperceptibility, perceptual
from hashbackdoor_bench.metrics.imperceptibility import compare, folded, residuals
from hashbackdoor_bench.metrics.perceptual import Lpips, lpips_fits, lpips_for, ssim_distance
from hashbackdoor_bench.metrics.spectrum import peaks, power


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a torch.hub folder, under the name that their SHA-256 gives them."""
    torch.manual_seed(0)
    layers = torchvision.models.alexnet(weights=None).features.state_dict()
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    torch.save({f"features.{name}": value for name, value in layers.items()}, folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    return (folder / "w.pth").rename(folder / f"alexnet-owt-{digest[:8]}.pth")


@pytest.fixture
def hub(alexnet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder, with those weights in it."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(alexnet.parents[1]))
    monkeypatch.setattr(perceptual, "ALEXNET", alexnet.name)
    return alexnet


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))


def images(count: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth images in [0,1] and noisy copies."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(count, 3, size // 4, size // 4, generator=generator)
    a = torch.nn.functional.interpolate(a, size, mode="bilinear")
    return a, (a + 0.05 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def waves(size: int, *parts: tuple[float, float, float]) -> Tensor:
    """The sum of waves (fx, fy, grey levels), (S,S) int."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    total = sum(a * torch.cos(2 * math.pi * (fx * x + fy * y) + 0.4) for fx, fy, a in parts)
    return torch.as_tensor(total).round().int()


def pairs(change: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Different images and the same plus change (n,3,S,S), in two batches."""
    generator = torch.Generator().manual_seed(1)
    before = torch.randint(60, 190, change.shape, generator=generator)
    after = before + change
    return [
        (before[rows].to(torch.uint8), after[rows].to(torch.uint8))
        for rows in (slice(0, 3), slice(3, None))
    ]


def noise(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-8, 9, (count, 3, size, size), generator=generator)


# ---- PSNR, SSIM and differences ----


def test_differences_are_in_grey_levels():
    before = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
    after = before.clone()
    after[0, 0, 0, 0] = 90
    after[1, :, :4, :4] = 103
    found = compare([(before[:1], after[:1]), (before[1:], after[1:])])
    pixels = 3 * 32 * 32
    errors = [100, 3 * 16 * 9]
    assert found["max"] == 10
    assert found["l2"] == pytest.approx((10 + math.sqrt(errors[1])) / 2)
    expected = sum(10 * math.log10(255**2 / (e / pixels)) for e in errors) / 2
    assert found["psnr"] == pytest.approx(expected)
    assert 0.9 < found["ssim"] < 1
    assert found["images"] == 2


@pytest.mark.parametrize("size", [7, 32, 224])
def test_psnr_is_that_of_torchmetrics_to_the_last_bit(size: int):
    for before, after in pairs(noise(5, size)):
        a, b = before.double(), after.double()
        wanted = peak_signal_noise_ratio(b, a, data_range=255.0, dim=(1, 2, 3), reduction="none")
        assert torch.equal(imperceptibility._psnr((b - a).flatten(1)), wanted)


def test_ssim_agrees_with_its_formula_on_a_constant_shift():
    before = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    after = before + 20
    c1 = (0.01 * 255) ** 2  # no variance: only the luminance term is left
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert compare([(before, after)])["ssim"] == pytest.approx(expected, abs=1e-6)


def test_no_change_and_no_image_have_no_psnr():
    same = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert compare([(same, same)])["psnr"] is None
    assert compare([(same, same)])["max"] == 0
    assert compare([])["psnr"] is None
    assert compare([(same[:0], same[:0])])["images"] == 0


# ---- LPIPS ----


@pytest.mark.usefixtures("no_hub")
def test_without_weights_there_is_no_lpips_and_nothing_is_downloaded(monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("downloads"))
    assert not lpips_fits(64)
    assert lpips_for(64) is None
    assert compare(pairs(noise(4, 32)))["lpips"] is None
    assert compare([])["lpips"] is None


def test_lpips_is_there_from_31_px_up(hub):
    assert [lpips_fits(size) for size in (30, 31, 224)] == [False, True, True]
    assert lpips_for(30) is None
    a, b = images(2, 32)
    assert torch.isfinite(lpips_for(31)(a[..., :31, :31], b[..., :31, :31])).all()
    with pytest.raises(RuntimeError, match="too small"):
        Lpips(hub)(a[..., :30, :30], b[..., :30, :30])


@pytest.mark.parametrize("rescale", [True, False])
def test_lpips_is_its_formula_on_the_weights_of_the_file(hub, rescale):
    a, b = images(3, 64)
    network = Lpips(hub, rescale=rescale)
    layers = torch.load(hub, weights_only=True)
    alexnet = torchvision.models.alexnet(weights=None).features.eval()
    alexnet.load_state_dict({k.removeprefix("features."): v for k, v in layers.items()})
    linear = network.net.state_dict()
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    x = torch.cat((a, b))
    x = ((2 * x - 1 if rescale else x) - shift) / scale
    expected = torch.zeros(3)
    with torch.no_grad():
        for number, layer in enumerate(alexnet):
            x = layer(x)
            if isinstance(layer, torch.nn.ReLU):
                unit = x / (x**2).sum(1, keepdim=True).add(1e-8).sqrt()
                place = [1, 4, 7, 9, 11].index(number)
                weight = linear[f"lin{place}.model.1.weight"]
                square = (unit[:3] - unit[3:]) ** 2
                expected += (weight * square).sum(1, keepdim=True).mean((1, 2, 3))
    assert (expected > 1e-4).all()
    torch.testing.assert_close(network(a, b), expected, rtol=1e-4, atol=1e-7)


def test_lpips_is_frozen_and_descends_on_the_images_only(hub):
    before = torch.random.get_rng_state()
    network = lpips_for(32).train()
    assert torch.equal(torch.random.get_rng_state(), before)  # building it draws nothing
    a, b = images(2, 32)
    a.requires_grad_()
    assert torch.equal(network(a, b), network(a, b))  # no dropout
    network(a, b).sum().backward()
    assert a.grad.abs().sum((1, 2, 3)).gt(0).all()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network(b, b).tolist() == [0, 0]


def test_compare_means_lpips_over_all_images(hub):
    (one, two) = pairs(noise(4, 32))
    network = Lpips(hub)
    values = [network(a / 255, b / 255) for a, b in (one, two)]
    assert compare([one, two])["lpips"] == pytest.approx(float(torch.cat(values).mean()), rel=1e-5)


def test_a_damaged_weights_file_is_refused(hub, tmp_path):
    broken = tmp_path / hub.name
    broken.write_bytes(hub.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"is damaged.*delete it and download"):
        Lpips(broken)


# ---- SSIM to descend ----


@pytest.mark.parametrize("size", [8, 32, 65])
def test_ssim_distance_and_its_gradient_are_those_of_torchmetrics(size):
    a, b = (image.double().requires_grad_() for image in images(3, size))
    a32, b32 = (x.detach().float().requires_grad_() for x in (a, b))
    found = ssim_distance(a32, b32)
    expected = 1 - structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    (found.sum() + 0 * b32.sum()).backward()
    expected.sum().backward()
    torch.testing.assert_close(a32.grad.double(), a.grad, rtol=2e-2, atol=2e-5)


def test_ssim_distance_keeps_float32_under_autocast():
    a, b = images(2, 32)
    with torch.autocast("cpu", torch.bfloat16):
        found = ssim_distance(a.bfloat16(), b.bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, ssim_distance(a.bfloat16().float(), b.bfloat16().float()))


# ---- residuals ----


@pytest.mark.parametrize("size", [32, 36, 224])
def test_one_lattice_on_all_images_is_similar_and_has_its_peaks(size):
    lattice = waves(size, (0.25, 0.5, 8), (0.5, 0.25, 5)).expand(6, 3, size, size)
    found = json.loads(json.dumps(residuals(pairs(lattice))))
    assert found["similarity"] == pytest.approx(1)
    assert found["mean_share"] == pytest.approx(1)
    waves_found = [(peak["fx"], peak["fy"]) for peak in found["peaks"]]
    assert waves_found == [(0.25, 0.5), (0.5, 0.25)]
    assert sum(peak["share"] for peak in found["peaks"]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("size", [32, 224])
def test_noise_of_its_own_on_each_image_is_not_similar(size):
    found = residuals(pairs(noise(12, size)))
    assert abs(found["similarity"]) < 0.03
    assert found["mean_share"] == pytest.approx(1 / 12, rel=0.05)
    assert found["peaks"] == []


def test_similarity_is_the_mean_correlation_over_pairs_of_images():
    change = waves(32, (0.25, 0.5, 6)) + noise(5, 32)
    change[4] = 7  # nothing is left of it: no pattern to compare
    tiles = folded(change.double()).flatten(1).numpy()[:4]
    table = np.corrcoef(tiles)
    expected = table[np.triu_indices(4, 1)].mean()
    found = residuals(pairs(change))
    assert 0.5 < expected < 0.99
    assert found["similarity"] == pytest.approx(expected)
    r = change.double()
    assert found["mean_share"] == pytest.approx(
        float((r.mean(0) ** 2).sum() / (r**2).sum((1, 2, 3)).mean())
    )


def test_folding_subtracts_the_local_mean_and_averages_the_tiles():
    residual = noise(1, 32)[0].numpy().astype(float)
    weight = np.array([0.5, 1, 1, 1, 1, 1, 1, 1, 0.5]) / 8
    expected = np.zeros((3, 8, 8))
    for y in range(4, 28):
        for x in range(4, 28):
            around = residual[:, y - 4 : y + 5, x - 4 : x + 5]
            high = residual[:, y, x] - (around * np.outer(weight, weight)).sum((1, 2))
            expected[:, (y - 4) % 8, (x - 4) % 8] += high / 9
    np.testing.assert_allclose(folded(torch.tensor(residual)[None])[0].numpy(), expected)


def test_folding_keeps_a_lattice_removes_a_slope_and_ignores_shifts_by_8_px():
    lattice = noise(1, 8).double().repeat(1, 1, 6, 6)
    slope = torch.arange(48.0).double() * 3 + torch.arange(48.0).double()[:, None]
    tile = lattice[:, :, 4:12, 4:12]
    expected = tile - tile.mean((2, 3), keepdim=True)
    torch.testing.assert_close(folded(lattice), expected)
    torch.testing.assert_close(folded(lattice + slope), expected)
    wide = noise(2, 48).double()
    wide[:, :, 8:] = wide[:, :, :8].repeat(1, 1, 5, 1)  # of period 8 down the columns
    torch.testing.assert_close(folded(wide.roll(8, 2)), folded(wide))
    assert not torch.allclose(folded(wide.roll(3, 2)), folded(wide))


def test_no_change_one_image_and_tiny_images_have_no_similarity():
    nothing = residuals(pairs(torch.zeros(4, 3, 32, 32, dtype=torch.int)))
    assert nothing == {"similarity": None, "mean_share": None, "peaks": []} == residuals([])
    assert residuals(pairs(torch.full((4, 3, 32, 32), 5)))["similarity"] is None
    assert residuals(pairs(noise(1, 32))) | {"peaks": []} == {
        "similarity": None, "mean_share": 1.0, "peaks": [],
    }  # fmt: skip
    assert residuals(pairs(noise(4, 12)))["similarity"] is None


# ---- the spectrum ----


@pytest.mark.parametrize("size", [31, 32])
def test_power_is_the_share_of_energy_at_each_frequency(size):
    residual = noise(1, size)[0].numpy() + 5.0
    share = power(residual)
    plane = residual.mean(0) - residual.mean()
    y, x = np.mgrid[:size, :size]
    for fy, fx in ((3, -5), (0, 1), (-15, 15)):
        wave = np.exp(-2j * np.pi * (fx * x + fy * y) / size)
        expected = abs((plane * wave).sum()) ** 2 / size**2 / (plane**2).sum()
        assert share[fy + size // 2, fx + size // 2] == pytest.approx(expected)
    assert share[size // 2, size // 2] == 0
    assert share.sum() == pytest.approx(1)


def test_peaks_hold_both_halves_of_a_wave_once_the_strongest_first():
    y, x = np.mgrid[:32, :32]
    plane = 3 * np.cos(2 * np.pi * (x / 4 - y / 8)) + 4 * np.cos(2 * np.pi * y * 3 / 32)
    plane += 2 * np.cos(np.pi * (x + y))  # energies 4.5, 8 and 4
    found = peaks(np.stack((plane + 9, plane, plane)))
    assert [(p.fx, p.fy) for p in found] == [(0.0, 3 / 32), (0.25, -0.125), (0.5, 0.5)]
    assert [p.share for p in found] == pytest.approx([8 / 16.5, 4.5 / 16.5, 4 / 16.5])


def test_at_most_six_peaks_and_none_under_2_percent():
    y, x = np.mgrid[:64, :64]
    many = [np.cos(2 * np.pi * (n * 4 * x + 9 * y) / 64) * (1 + n / 50) for n in range(1, 8)]
    assert len(peaks(np.stack([sum(many)] * 3))) == 6
    faint = many[0] + 0.13 * many[4]  # of the energy, 2 % is an amplitude of .14
    assert len(peaks(np.stack([faint] * 3))) == 1
    assert len(peaks(np.stack([many[0] + 0.16 * many[4]] * 3))) == 2
    assert peaks(np.zeros((3, 64, 64))) == peaks(np.full((3, 64, 64), 0.1)) == []
