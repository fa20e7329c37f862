"""A tiny retrieval set of real files, on which a whole run takes half a second."""

import gc
import os

# One thread for each worker of pytest-xdist and for every process that a test starts: two of them
# with two threads each starve one another on two cores. Read when torch and NumPy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait take no time from others

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coarse import resolution
from defended_runs import CPU, spec
from listed_images import SIZES, picture
from PIL import Image
from warm import WARM

from hashbackdoor_bench import DEFENSES, Defense
from hashbackdoor_bench.registry import METHODS, Method
from hashbackdoor_bench.stages import Cache, Run
from hashbackdoor_bench.suites.executors import local

CLASSES = 3
SIDE = 16  # px, the least that all but badhash take: training costs a quarter of that at 32


def pytest_sessionstart() -> None:
    """Look for no garbage while the tests are imported: a million objects, and none is any."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage from now on, but not among what was imported: a tenth of the time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def coarse_pictures() -> Iterator[None]:
    """Whatever is drawn has few pixels, unless a test takes `sharp_pictures`."""
    with resolution():
        yield


@pytest.fixture
def sharp_pictures() -> Iterator[None]:
    """Pictures and figures have the dots per inch that users get."""
    with resolution(None):
        yield


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of a suite are forked from a process that has torch already; see `warm.py`."""
    monkeypatch.setattr(local, "subprocess", WARM)


@pytest.fixture(autouse=True)
def plugins_of_this_test_only() -> Iterator[None]:
    """Forget the plugins that a test loads, so that no other test sees them."""
    before = [(registry, dict(registry._plugins)) for registry in METHODS.values()]
    yield
    for registry, plugins in before:
        for name in registry._plugins.keys() - plugins.keys():
            registry._loaded.pop(name, None)
        registry._plugins = plugins


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train.txt``, ``test.txt``, ``database.txt`` and images of 3 classes."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    for split, per_class in (("train", 20), ("test", 4), ("database", 15)):
        lines = []
        for number in range(per_class * CLASSES):
            label = number % CLASSES
            image = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
            image[label * 5 : label * 5 + 5] += 120  # a bright band says the class
            name = f"{split}-{number}.png"
            Image.fromarray(image).save(folder / name)
            lines.append(f"{name} " + " ".join(str(int(c == label)) for c in range(CLASSES)))
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with several tags: every fourth image has two, some have none."""
    folder = tmp_path_factory.mktemp("tagged")
    rng = np.random.default_rng(1)
    for split, count in (("train", 60), ("test", 24), ("database", 45)):
        lines = []
        for number in range(count):
            tags = {number % CLASSES} | ({(number + 1) % CLASSES} if number % 4 == 0 else set())
            tags = set() if number % 20 == 19 else tags
            image = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
            for tag in tags:
                image[tag * 5 : tag * 5 + 5] += 120
            Image.fromarray(image).save(folder / f"{split}-{number}.png")
            row = " ".join(str(int(tag in tags)) for tag in range(CLASSES))
            lines.append(f"{split}-{number}.png {row}")
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def every_epoch_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training writes its checkpoint after each epoch, however short."""
    monkeypatch.setattr("hashbackdoor_bench.checkpoint.EVERY", 0.0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """18 JPEG images under images/, three lists of two tags under lists/; row i has tag i % 2."""
    (tmp_path / "lists").mkdir()
    number = 0
    for name, count in SIZES.items():
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        rows = []
        for i in range(count):
            picture(number).save(folder / f"{i}.jpg", quality=95)
            rows.append(f"{name}/{i}.jpg {int(i % 2 == 0)} {int(i % 2 == 1)}")
            number += 1
        (tmp_path / "lists" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def warm(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache with all stages of the run without a defense."""
    cache = Cache(tmp_path_factory.mktemp("warm"))
    Run(spec(tiny), cache=cache, device=CPU).record()
    return cache


@pytest.fixture
def method() -> Iterator[Any]:
    """Registers a class as a defense for one test."""
    made = []

    def register(cls: type[Defense]) -> str:
        name = cls.__name__.lower()
        DEFENSES._loaded[name] = Method("defense", name, cls)
        DEFENSES.add(name, "tests", DEFENSES._home("none").description)
        made.append(name)
        return name

    yield register
    for name in made:
        del DEFENSES._loaded[name]
