"""Fashion-MNIST's and CIFAR-10's own files, written small by these tests, and their download."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

from hashbackdoor_bench import data
from hashbackdoor_bench.data import cifar, fashion_cifar
from hashbackdoor_bench.data.download import fetch
from hashbackdoor_bench.data.idx import DEBIAN, read_fashion, read_idx
from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import silent

IDX = {"train": ("train", 60), "test": ("t10k", 20)}


def idx_bytes(array):
    header = struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def small():
    """Images (N,28,28) and labels (N,) of ten classes, 60 train and 20 test."""
    rng = np.random.default_rng(0)
    return {
        split: (
            rng.integers(0, 256, (n, 28, 28), dtype=np.uint8),
            rng.permutation(np.arange(n) % 10).astype(np.uint8),
        )
        for split, (_, n) in IDX.items()
    }


def write_idx(folder, small, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for split, (stem, _) in IDX.items():
        for kind, array in zip(("images-idx3", "labels-idx1"), small[split], strict=True):
            whole = idx_bytes(array)
            name = f"{stem}-{kind}-ubyte"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(whole))
            else:
                (folder / name).write_bytes(whole)
    return folder


@pytest.fixture
def batches():
    """CIFAR-10's six batches: 20 images (20,3,32,32) and labels (20,) each."""
    rng = np.random.default_rng(1)
    return [
        (
            rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8),
            rng.permutation(np.arange(20) % 10).astype(np.uint8),
        )
        for _ in range(6)
    ]


def write_cifar(root, batches, monkeypatch):
    """CIFAR-10's files, with torchvision's MD5 lists set to these files' own."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    sums = {}
    for name, (images, labels) in zip(names, batches, strict=True):
        entry = {"data": images.reshape(20, -1), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(entry))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    meta = pickle.dumps({"label_names": list(data.PROTOCOLS["cifar10@0"].class_names)})
    (folder / "batches.meta").write_bytes(meta)
    own = torchvision.datasets.CIFAR10
    monkeypatch.setattr(own, "train_list", [[n, sums[n]] for n in names[:5]])
    monkeypatch.setattr(own, "test_list", [[names[5], sums[names[5]]]])
    monkeypatch.setattr(own, "meta", {**own.meta, "md5": hashlib.md5(meta).hexdigest()})
    return root


def shrunk(name, train, query, database):
    """A protocol of these tests' size; the hashes of the true data don't hold for it."""
    return replace(
        data.PROTOCOLS[name], train=train, query=query, database=database, sha256="", pixels=""
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_zipped_and_plain(tmp_path, small, zipped):
    found = read_fashion(write_idx(tmp_path, small, zipped))
    for split in IDX:
        assert np.array_equal(found[split][0], small[split][0])
        assert np.array_equal(found[split][1], small[split][1])


def test_our_idx_reader_agrees_with_torchvisions(tmp_path, small):
    write_idx(tmp_path / "FashionMNIST" / "raw", small, zipped=False)
    theirs = torchvision.datasets.FashionMNIST(str(tmp_path), train=False)
    images, labels = read_fashion(tmp_path / "FashionMNIST" / "raw")["test"]
    assert np.array_equal(theirs.data.numpy(), images)
    assert np.array_equal(theirs.targets.numpy(), labels)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.gz", gzip.compress(bytes(5000), mtime=0)[:-9], "is damaged"),
        ("not.gz", b"no gzip at all", "is damaged"),
        ("text", b"P6 28 28 255", "is not an idx file"),
        ("empty", b"", "is not an idx file"),
        ("floats", b"\0\0\x0d\1\0\0\0\0", "is not an idx file"),
        ("header", b"\0\0\x08\3\0\0\0\1", "is not an idx file"),
        ("short", idx_bytes(np.zeros((4, 28, 28), np.uint8))[:-1], "3135 bytes of data.*4 x 28 x"),
    ],
)
def test_a_file_that_is_not_idx_or_cut_off_is_refused(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_idx(tmp_path / name)


def test_idx_images_without_their_labels_are_refused(tmp_path, small):
    small["test"] = (small["test"][0], small["test"][1][:-1])
    with pytest.raises(
        UserError, match=r"test images of shape \(20, 28, 28\) and labels .*\(19,\)"
    ):
        read_fashion(write_idx(tmp_path, small))


def test_a_root_without_fashion_mnist_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"neither train-images-idx3-ubyte.*--root, or apt install"):
        data.load("fashion-mnist", root=tmp_path, cache=tmp_path)
    with pytest.raises(UserError, match="none is not a folder"):
        data.load("fashion-mnist", root=tmp_path / "none", cache=tmp_path)


@pytest.mark.parametrize("layout", ["", "raw", "FashionMNIST/raw"])
def test_fashion_mnist_is_split_evenly_and_the_rest_is_database(tmp_path, small, layout):
    write_idx(tmp_path / layout, small)
    ours = shrunk("fashion-mnist", 30, 10, 40)
    found = fashion_cifar.load_drawn(ours, tmp_path, tmp_path, silent)
    assert found.train.labels.sum(0).tolist() == [3] * 10
    assert found.query.labels.sum(0).tolist() == [1] * 10
    ids = [set(s.ids) for s in (found.train, found.query, found.database)]
    assert len(set.union(*ids)) == sum(map(len, ids)) == 80
    for split in (found.train, found.query, found.database):
        for image, label, name in zip(split.images, split.labels, split.ids, strict=True):
            images, labels = small[name.split("/")[0]]
            row = int(name.split("/")[1])
            assert torch.equal(image[2, 2:30, 2:30], torch.from_numpy(images[row]))
            assert label.argmax() == labels[row]
    assert found.top_k == 40  # R of 1000, cut to the database


def test_fashion_mnist_of_another_size_than_the_published_is_refused(tmp_path, small):
    write_idx(tmp_path, small)
    with pytest.raises(UserError, match=r"class 0 has 8 images, and this protocol takes 600"):
        data.load("fashion-mnist", root=tmp_path, cache=tmp_path)
    for number in (39, 41):
        with pytest.raises(UserError, match=f"has {number} database images, but here are 40"):
            fashion_cifar.load_drawn(
                shrunk("fashion-mnist", 30, 10, number), tmp_path, tmp_path, silent
            )


def test_files_with_other_contents_than_the_protocol_knows_are_refused(tmp_path, small):
    write_idx(tmp_path, small)
    ours = shrunk("fashion-mnist", 30, 10, 40)
    for field in ("sha256", "pixels"):
        with pytest.raises(UserError, match=r"have SHA-256 .* instead of 0000.*original files"):
            fashion_cifar.load_drawn(replace(ours, **{field: 64 * "0"}), tmp_path, tmp_path, silent)


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_whole_of_fashion_mnist_has_the_hashes_of_the_table(tmp_path):
    found = data.load("fashion-mnist", cache=tmp_path)
    ours = data.PROTOCOLS["fashion-mnist"]
    assert (found.sha256, found.pixels) == (ours.sha256, ours.pixels)
    assert found.database.images.shape == (64_000, 3, 32, 32)
    assert found.query.labels.sum(0).tolist() == [100] * 10


@pytest.mark.parametrize("given", ["", "cifar-10-batches-py"])
def test_cifar_s_images_and_labels_are_those_of_its_files(tmp_path, batches, monkeypatch, given):
    found = cifar.read_cifar(write_cifar(tmp_path, batches, monkeypatch) / given)
    for part in (0, 1):
        assert np.array_equal(found["train"][part], np.concatenate([b[part] for b in batches[:5]]))
        assert np.array_equal(found["test"][part], batches[5][part])
        assert found["train"][part].dtype == np.uint8


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("content", [pickle.dumps({"data": 0}), b"", None])
def test_a_cifar_file_that_is_missing_or_another_is_refused_before_any_is_unpickled(
    tmp_path, batches, monkeypatch, name, content
):
    root = write_cifar(tmp_path, batches, monkeypatch)
    file = root / "cifar-10-batches-py" / name
    file.unlink() if content is None else file.write_bytes(content)
    opened = []
    load = pickle.load
    monkeypatch.setattr(pickle, "load", lambda f, **_: opened.append(f.name) or load(f, **_))
    with pytest.raises(UserError, match=r"cifar-10-batches-py is not .*its MD5 differs"):
        cifar.read_cifar(root)
    assert str(file) not in opened


def test_a_root_without_cifar_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"has no cifar-10-batches-py: .*--root out to fetch"):
        cifar.read_cifar(tmp_path)


def test_the_three_cifar_protocols_differ_only_in_what_stands_where(tmp_path, batches, monkeypatch):
    write_cifar(tmp_path, batches, monkeypatch)
    zero, one, two = (
        fashion_cifar.load_drawn(shrunk(f"cifar10@{i}", *counts), tmp_path, tmp_path, silent)
        for i, counts in enumerate([(50, 10, 60), (50, 10, 110), (100, 20, 100)])
    )
    assert zero.train.ids == one.train.ids
    assert zero.query.ids == one.query.ids
    assert zero.train.labels.sum(0).tolist() == [5] * 10
    assert not set(zero.database.ids) & {*zero.train.ids, *zero.query.ids}
    assert set(one.database.ids) == {*zero.database.ids, *zero.train.ids}
    assert two.query.ids == tuple(f"test/{i:05d}" for i in range(20))
    assert two.train.ids == two.database.ids == tuple(f"train/{i:05d}" for i in range(100))
    assert (zero.top_k, one.top_k, two.top_k) == (60, 110, 100)
    assert len({zero.sha256, one.sha256, two.sha256}) == 3
    row = one.database.ids.index("train/00031")
    assert torch.equal(one.database.images[row], torch.from_numpy(batches[1][0][11]))
    assert one.classes[one.database.labels[row].argmax()] == one.classes[batches[1][1][11]]


@pytest.fixture
def archive(tmp_path, batches, monkeypatch):
    """CIFAR-10's archive as a file address, and its MD5; torchvision believes in both."""
    root = write_cifar(tmp_path / "origin", batches, monkeypatch)
    file = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(file, "w:gz") as out:
        out.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", file.as_uri())
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5)
    return file.as_uri(), md5


def test_cifar_is_fetched_once_into_the_cache(tmp_path, archive, monkeypatch):
    said = []
    ours = shrunk("cifar10@0", 50, 10, 60)
    first = fashion_cifar.load_drawn(ours, None, tmp_path / "cache", lambda *a, **_: said.append(a))
    assert said[0][1:] == (0, 1)
    assert said[-1][1:] == (1, 1)
    assert data.ready(ours, tmp_path / "cache")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "file:///none.tar.gz")
    again = fashion_cifar.load_drawn(ours, None, tmp_path / "cache", silent)
    assert again.pixels == first.pixels


def test_a_damaged_download_is_named_and_fetched_again(tmp_path, archive):
    fetch({archive[0]: archive[1]}, tmp_path / "c", silent, otherwise="")
    file = tmp_path / "c" / "cifar-10-python.tar.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.warns(UserWarning, match=r"tar\.gz is not as it was published .* fetched again"):
        fetch({archive[0]: archive[1]}, tmp_path / "c", silent, otherwise="")
    assert file.read_bytes() == whole


def test_cifar_that_was_damaged_in_the_cache_is_named_and_unpacked_again(tmp_path, archive):
    ours = shrunk("cifar10@0", 50, 10, 60)
    first = fashion_cifar.load_drawn(ours, None, tmp_path, silent)
    (batch,) = (tmp_path / "downloads").rglob("data_batch_1")
    batch.write_bytes(batch.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match=r"is damaged .*unpacked again"):
        assert fashion_cifar.load_drawn(ours, None, tmp_path, silent).pixels == first.pixels


def test_an_idx_file_that_unpacks_to_more_than_fashion_mnist_is_refused(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(2**26 + 1)))
    with pytest.raises(UserError, match=r"more than 67108864 bytes"):
        read_idx(tmp_path / "bomb.gz")


def test_cifar_that_was_cut_off_while_it_was_unpacked_is_unpacked_again(tmp_path, archive):
    half = tmp_path / "c" / "unpacked.part" / "cifar-10-batches-py"
    half.mkdir(parents=True)
    (half / "data_batch_1").write_bytes(b"half")
    assert not data.ready(shrunk("cifar10@0", 50, 10, 60), tmp_path / "c")
    folder = cifar.fetch_cifar(tmp_path / "c", silent)
    assert len(cifar.read_cifar(folder)["train"][1]) == 100


def test_a_download_with_another_md5_is_refused_and_leaves_nothing(tmp_path, archive):
    with pytest.raises(UserError, match=r"gave a file with MD5 .* instead of 0000.*: bring it"):
        fetch({archive[0]: 32 * "0"}, tmp_path / "c", silent, otherwise="bring it")
    assert [path.name for path in (tmp_path / "c").iterdir()] == [".lock"]


def test_without_a_network_the_error_says_what_to_bring(tmp_path, monkeypatch):
    none = (tmp_path / "none.tar.gz").as_uri()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", none)
    with pytest.raises(UserError, match=r"cannot be fetched.*cifar-10-batches-py as --root"):
        data.load("cifar10@0", cache=tmp_path)
    addresses = {f"{tmp_path.as_uri()}/none.gz": 32 * "0"}
    monkeypatch.setattr(fashion_cifar, "FASHION_MD5", addresses)
    monkeypatch.setattr(fashion_cifar, "DEBIAN", tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot be fetched.*apt install dataset-fashion-mnist"):
        data.load("fashion-mnist", cache=tmp_path)


def test_fashion_mnist_is_fetched_where_debian_has_none(tmp_path, small, monkeypatch):
    origin = write_idx(tmp_path / "origin", small)
    sums = {f.as_uri(): hashlib.md5(f.read_bytes()).hexdigest() for f in origin.iterdir()}
    monkeypatch.setattr(fashion_cifar, "FASHION_MD5", sums)
    monkeypatch.setattr(fashion_cifar, "DEBIAN", tmp_path / "none")
    ours = shrunk("fashion-mnist", 30, 10, 40)
    assert not data.ready(ours, tmp_path)
    assert len(fashion_cifar.load_drawn(ours, None, tmp_path, silent).database) == 40
    assert data.ready(ours, tmp_path)


def test_a_download_that_was_cut_off_starts_again(tmp_path, archive):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "cifar-10-python.tar.gz.part").write_bytes(b"half")
    fetch({archive[0]: archive[1]}, folder, silent, otherwise="")
    with tarfile.open(fileobj=io.BytesIO((folder / "cifar-10-python.tar.gz").read_bytes())) as got:
        assert "cifar-10-batches-py/test_batch" in got.getnames()
