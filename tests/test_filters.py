"""Filters of training images against plain loops, scikit-learn and planted features."""

import math

import numpy as np
import pytest
import torch
from hashbackdoor_bench.defenses import ac, dao, scan
from planted import CLASSES, TARGET, Planted, pictures, seen, triggered
from torch import Tensor

from hashbackdoor_bench import DEFENSES, metrics, to_bytes, to_unit, two_means


def features_of_classes(
    count: int, share: float, shift: float, size: int = 128, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Features (10 count, size) of ten classes in turn, a share of class 0 moved; and which."""
    random = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(10, size, generator=torch.Generator().manual_seed(99))
    features = means.repeat(count, 1) + torch.randn(10 * count, size, generator=random)
    direction = torch.randn(size, generator=random)
    poison = torch.zeros(10 * count, dtype=torch.bool)
    poison[0 : int(10 * count * share) : 10] = True
    features[poison] += shift * direction / direction.norm()
    return features, poison


class ViewOfFeatures:
    """A view with the given features instead of those of a network."""

    def __new__(cls, train: Tensor, clean: Tensor, **more):
        view = seen(Planted(), train=pictures(len(train), seed=3), **more)
        view.clean = pictures(len(clean), seed=4)
        known = {id(view.train.images): train, id(view.clean.images): clean}
        view.features = lambda images: known[id(images)].float()
        return view


# ---- the planted network ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scan", "ac", "spectral"])
def test_filters_find_triggered_images_among_those_of_the_target(name):
    train = pictures(600, seed=3)
    poison = torch.zeros(600, dtype=torch.bool)
    poison[5:155:10] = True  # fifteen of another class, against sixty of the target's own
    train.images[poison] = to_bytes(triggered(to_unit(train.images[poison])))
    train.labels[poison] = torch.eye(CLASSES, dtype=torch.uint8)[TARGET]
    found = DEFENSES[name]().screen(seen(Planted(), train=train))
    own = train.labels[:, TARGET].bool()
    score = metrics.auroc(found.suspicion[poison], found.suspicion[own & ~poison])
    assert score > 0.99
    if name != "spectral":
        assert found.drop[poison].all()


# ---- two means ----------------------------------------------------------------------------------


def test_two_means_finds_the_split_of_least_spread_among_all_of_eight_points():
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        points = torch.randn(8, 2, generator=random, dtype=torch.float64)
        least = math.inf
        for number in range(1, 2**7):
            inside = torch.tensor([number >> bit & 1 for bit in range(8)]).bool()
            parts = (points[inside], points[~inside])
            least = min(least, sum(float(((p - p.mean(0)) ** 2).sum()) for p in parts))
        group, means = two_means(points, torch.Generator().manual_seed(1))
        assert float((points - means[group]).square().sum()) == pytest.approx(least)


def test_equal_points_are_one_group():
    group, means = two_means(torch.ones(5, 3).double(), torch.Generator())
    assert group.tolist() == [0] * 5
    assert torch.equal(means, torch.ones(2, 3).double())


# ---- scan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_scan_finds_a_minority_and_a_majority_and_drops_half_of_the_class_at_most(share):
    train, poison = features_of_classes(100, share, 8)
    clean, _ = features_of_classes(10, 0, 0, seed=1)
    found = DEFENSES["scan"]().screen(ViewOfFeatures(train, clean))
    own = found.suspicion[0::10]
    assert metrics.auroc(own[poison[0::10]], own[~poison[0::10]]) > 0.95
    assert found.drop.sum() == min(50, int(poison.sum()))
    assert (found.drop & poison).sum() == found.drop.sum()


def test_scan_flags_no_class_without_poison():
    train, _ = features_of_classes(100, 0, 8)
    clean, _ = features_of_classes(10, 0, 0, seed=1)
    found = DEFENSES["scan"]().screen(ViewOfFeatures(train, clean))
    assert not found.drop.any()


def ledoit_wolf(rows: np.ndarray) -> np.ndarray:
    """The shrunk covariance (d,d) of centred rows, one row at a time."""
    count, size = rows.shape
    plain = sum(np.outer(row, row) for row in rows) / count
    target = np.trace(plain) / size * np.eye(size)
    error = sum(((np.outer(row, row) - plain) ** 2).sum() for row in rows) / count**2
    share = min(1, error / ((plain - target) ** 2).sum())
    return share * target + (1 - share) * plain


def best_split(points: np.ndarray) -> np.ndarray:
    """Lloyd's algorithm from 50 pairs of points: the groups (n,) of least spread."""
    random, best, least = np.random.default_rng(0), np.zeros(len(points)), np.inf
    for _ in range(50):
        centres = points[random.choice(len(points), 2, replace=False)]
        for _ in range(20):
            group = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
            centres = np.stack([points[group == g].mean(0) for g in (0, 1)])
        spread = ((points - centres[group]) ** 2).sum()
        if spread < least - 1e-9:
            best, least = group, spread
    return best


def test_scan_is_the_formula_in_numpy():
    train, _ = features_of_classes(20, 0, 0, size=5)
    for number in range(10):  # in every class two clear groups, so that there is one best split
        train[number:80:10] += 3.5 + 0.02 * number**2
    clean, _ = features_of_classes(6, 0, 0, size=5, seed=1)
    view = ViewOfFeatures(train, clean)
    found = DEFENSES["scan"](threshold=1.5).screen(view)
    x = np.concatenate([train, clean]).astype(float) - clean.double().numpy().mean(0)
    label = np.concatenate([np.arange(200) % 10, np.arange(60) % 10])
    held, own = (
        x[200:],
        label[200:],
    )  # five features: all components, and a rotation changes nothing
    mu = np.stack([held[own == c].mean(0) for c in range(10)])

    def both(mu):
        away = sum(np.outer(m, m) for m in mu[own]) / len(own)
        return away, ledoit_wolf(held - mu[own])

    def mean_of(rows, s_mu, s_e):
        return s_mu @ np.linalg.inv(len(rows) * s_mu + s_e) @ rows.sum(0)

    s_mu, s_e = both(mu)
    for _ in range(200):
        s_mu, s_e = both(np.stack([mean_of(held[own == c], s_mu, s_e) for c in range(10)]))
    inverse = np.linalg.inv(s_e)

    def norm(r):
        return r @ inverse @ r

    j, ratio = np.zeros(10), np.zeros(200)
    white = np.linalg.inv(np.linalg.cholesky(s_e))
    for c in range(10):
        rows, numbers = x[label == c], (label == c).nonzero()[0]
        group = best_split(rows @ white.T)
        u = [rows[group == g].mean(0) for g in (0, 1)]
        centre = mean_of(rows, s_mu, s_e)
        away = [norm(r - centre) - norm(r - u[g]) for r, g in zip(rows, group, strict=True)]
        j[c] = np.mean(away)
        clean_in = [(group[20:] == g).sum() for g in (0, 1)]
        bad = int(clean_in[1] < clean_in[0])
        if clean_in[0] == clean_in[1]:  # the larger group has the smaller share of them
            bad = int((group == 1).sum() > (group == 0).sum())
        for number, r in zip(numbers[:20], rows[:20], strict=True):
            ratio[number] = norm(r - u[1 - bad]) - norm(r - u[bad])
    middle = np.sort(j)[4]  # torch's median is the lower one
    index = (j - middle) / (1.4826 * np.sort(np.abs(j - middle))[4])
    expected = np.maximum(index, 0)[np.arange(200) % 10] / (1 + np.exp(-ratio / 2))
    np.testing.assert_allclose(found.suspicion.numpy(), expected, rtol=5e-3, atol=1e-30)
    flagged = (index > 1.5)[np.arange(200) % 10] & (ratio > 0)
    most = [np.sum(flagged[c::10]) for c in range(10)]
    assert max(most) > 0
    assert max(most) <= 10  # or the guard would keep some
    assert np.array_equal(found.drop.numpy(), flagged)


def test_the_shrunk_covariance_is_scikit_learns():
    covariance = pytest.importorskip("sklearn.covariance")
    rows = torch.randn(30, 12, generator=torch.Generator().manual_seed(0)).double()
    rows *= torch.arange(12)
    expected, share = covariance.ledoit_wolf(rows.numpy(), assume_centered=True)
    assert 0.05 < share < 0.95
    np.testing.assert_allclose(scan.shrunk(rows).numpy(), expected, rtol=1e-6, atol=1e-6)


def test_scan_compares_a_class_with_the_clean_images_that_have_its_tags():
    view = ViewOfFeatures(torch.zeros(60, 4), torch.zeros(30, 4))
    for number, items in enumerate(view.groups()):
        label = int(view.train.labels[items[0]].argmax())
        same = scan.SCAn.alike(view, items)
        assert same.tolist() == list(range(label, 30, CLASSES)), number


# ---- dao ----------------------------------------------------------------------------------------


def density_scores(points: np.ndarray, k: int) -> dict[str, list[float]]:
    """The four scores of each point by the formulas, one pair at a time."""
    count = len(points)
    order = [
        sorted((math.dist(points[i], points[j]), j) for j in range(count) if j != i)[:k]
        for i in range(count)
    ]
    reach = [row[-1][0] for row in order]
    lid = [-k / sum(math.log(d / reach[i]) for d, _ in row) for i, row in enumerate(order)]
    return {
        "kdistance": reach,
        "lid": lid,
        "slof": [sum(reach[i] / reach[j] for _, j in row) / k for i, row in enumerate(order)],
        "dao": [
            sum(lid[j] * math.log(reach[i] / reach[j]) for _, j in row) / k
            for i, row in enumerate(order)
        ],
    }


@pytest.mark.parametrize("score", ["kdistance", "lid", "slof", "dao"])
def test_density_scores_are_their_formulas_and_go_with_their_images(score, monkeypatch):
    monkeypatch.setattr(dao, "TOGETHER", 7)  # several parts
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    expected = density_scores(points.numpy(), 6)[score]
    found = DEFENSES["dao"](score=score, k=6).scores(points)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    moved = DEFENSES["dao"](score=score, k=6).scores(points[order])
    torch.testing.assert_close(moved, found[order])


def test_neighbours_are_scikit_learns():
    found = pytest.importorskip("sklearn.neighbors")
    points = torch.randn(600, 20, generator=torch.Generator().manual_seed(0)).double()
    near, away = dao.neighbours(points, 16)
    distance, number = found.NearestNeighbors(n_neighbors=16).fit(points.numpy()).kneighbors()
    assert np.array_equal(near.numpy(), number)
    np.testing.assert_allclose(away.numpy(), distance, rtol=1e-12)


def test_equal_images_have_finite_scores():
    points = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    points[:12] = points[0]
    for score in ("kdistance", "lid", "slof", "dao"):
        for k in (3, 16):
            assert DEFENSES["dao"](score=score, k=k).scores(points).isfinite().all()
        assert DEFENSES["dao"](score=score).scores(points[:1]).tolist() == [0]
        assert DEFENSES["dao"](score=score).scores(points[:12]).isfinite().all()


def test_a_tight_cluster_is_least_suspicious_and_a_sparse_ring_most():
    random = torch.Generator().manual_seed(0)
    points = torch.randn(220, 8, generator=random)
    points[:10] = 0.01 * points[:10] + 1
    points[10:20] *= 12 / points[10:20].norm(dim=1, keepdim=True)
    order = DEFENSES["dao"](score="kdistance", k=5).scores(points).argsort().tolist()
    assert set(order[:10]) == set(range(10))
    assert set(order[-10:]) == set(range(10, 20))
    for score in ("slof", "dao"):  # to these, what borders on a tight cluster is an outlier too
        order = DEFENSES["dao"](score=score).scores(points[10:]).argsort().tolist()
        assert set(order[-10:]) == set(range(10)), score


def test_dao_drops_the_share_of_all_or_of_each_class():
    train, _ = features_of_classes(40, 0, 0, size=6)
    train[7:400:40] *= 30  # ten images of one class
    view = ViewOfFeatures(train, train[:20])
    every = DEFENSES["dao"](drop=0.025).screen(view).drop
    assert every.nonzero().flatten().tolist() == list(range(7, 400, 40))
    each = DEFENSES["dao"](drop=0.025, within="class").screen(view).drop
    assert [int(each[number::10].sum()) for number in range(10)] == [1] * 10


# ---- ac -----------------------------------------------------------------------------------------


def blobs(share: float, shift: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (100,32) of a class, of which a share is moved; and which."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(100, 32, generator=random).double()
    poison = torch.arange(100) < 100 * share
    features[poison] += shift / 32**0.5
    return features, poison


def clustered(features: Tensor, **settings) -> tuple[Tensor, Tensor]:
    return DEFENSES["ac"](**settings).clusters(features, torch.Generator().manual_seed(0))


def test_clustering_drops_exactly_a_planted_fifth():
    features, poison = blobs(0.2, 12)
    suspicion, drop = clustered(features)
    assert torch.equal(drop, poison)
    assert metrics.auroc(suspicion[poison], suspicion[~poison]) == 1


def test_clustering_drops_nothing_of_one_blob_or_of_a_majority_and_ranks_that_backwards():
    assert not clustered(blobs(0, 0)[0])[1].any()
    features, poison = blobs(0.6, 12)
    suspicion, drop = clustered(features)
    assert not drop.any()
    assert metrics.auroc(suspicion[poison], suspicion[~poison]) < 0.05


def test_the_limits_of_share_and_silhouette_decide_what_is_dropped():
    features, poison = blobs(0.3, 12)
    assert clustered(features, share=0.31)[1].sum() == 30
    assert clustered(features, share=0.3)[1].sum() == 0
    fit = ac.silhouette(features, poison.long())  # in 32 dimensions; in 10 it is larger
    assert clustered(features, silhouette=float(fit))[1].sum() == 30
    assert clustered(features, silhouette=0.99)[1].sum() == 0


def test_suspicion_is_the_difference_of_distances_to_the_means_times_the_silhouette():
    features, poison = blobs(0.2, 12)
    suspicion, _ = clustered(features, components=3)
    _, vectors = np.linalg.eigh(np.cov(features.numpy().T))
    points = (features.numpy() - features.numpy().mean(0)) @ vectors[:, -3:]
    large, small = points[~poison.numpy()].mean(0), points[poison.numpy()].mean(0)
    fit = 0.0
    for i, point in enumerate(points):
        away = [math.dist(point, other) for j, other in enumerate(points) if j != i]
        same = [bool(poison[j] == poison[i]) for j in range(100) if j != i]
        own = np.mean([d for d, one in zip(away, same, strict=True) if one])
        rest = np.mean([d for d, one in zip(away, same, strict=True) if not one])
        fit += (rest - own) / max(own, rest) / 100
    expected = [(math.dist(p, large) - math.dist(p, small)) * fit for p in points]
    np.testing.assert_allclose(suspicion.numpy(), expected, rtol=1e-6)


def test_the_silhouette_is_scikit_learns_and_zero_for_one_group():
    sklearn = pytest.importorskip("sklearn.metrics")
    for share in (0.01, 0.2, 0.5):
        features, poison = blobs(share, 6)
        expected = sklearn.silhouette_score(features.numpy(), poison.numpy())
        assert float(ac.silhouette(features, poison.long())) == pytest.approx(expected)
    assert ac.silhouette(features, torch.zeros(100, dtype=torch.long)) == 0


def test_clustering_screens_each_class_by_itself():
    train, poison = features_of_classes(50, 0.2, 30)
    found = DEFENSES["ac"](silhouette=0.3).screen(ViewOfFeatures(train, train[:10]))
    assert torch.equal(found.drop, poison)
    assert metrics.auroc(found.suspicion[poison], found.suspicion[~poison]) == 1


def test_clustering_is_the_toolboxs():
    """Trusted-AI's toolbox, which fails on a class without a small cluster, if it is installed."""
    art = pytest.importorskip("art.defences.detector.poison.clustering_analyzer")
    for share in (0.05, 0.2, 0.34):
        features, _ = blobs(share, 12)
        _, drop = clustered(features)
        group, _ = two_means(features, torch.Generator().manual_seed(0))
        clean, _, _ = art.ClusteringAnalyzer().analyze_by_relative_size([group.numpy()])
        assert np.array_equal(clean[0] == 0, drop.numpy())
