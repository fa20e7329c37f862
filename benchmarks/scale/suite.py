"""The simulated suite: its file, its places, and how it is laid out and executed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hashbackdoor_bench.registry import load_plugin
from hashbackdoor_bench.stages import Cache
from hashbackdoor_bench.suites import Layout, Suite, find_suite, lay_out

PLUGIN = Path(__file__).with_name("stubs.py")
STRENGTHS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Simulated:
    """A suite of stub stages in a folder of its own: 72 runs of 502 stages for each seed.

    Attributes:
        work: the folder.
        seeds: number of seeds.
        seconds: how long each stage sleeps.
        victims: hashing methods.
        bits: code lengths.
    """

    work: Path
    seeds: int
    seconds: float = 0.0
    victims: Sequence[str] = ("hashnet", "csq", "dpsh")
    bits: Sequence[int] = (16, 32, 48, 64)

    @property
    def cache(self) -> Path:
        """Root of the cache."""
        return self.work / "cache"

    @property
    def results(self) -> Path:
        """Folder of the records."""
        return self.work / "results"

    def read(self) -> Suite:
        """Write the suite's file and read it; its attack's plugin must be loaded."""
        lists = {"victim": self.victims, "bits": self.bits, "seed": range(self.seeds)}
        lines = [f"{name} = {json.dumps(list(values))}" for name, values in lists.items()]
        path = self.work / "simulated.toml"
        path.write_text(
            "\n".join(
                [
                    'title = "A simulation"',
                    'dataset = "fashion-mini"',
                    *lines,
                    f"set.attack.seconds = {self.seconds}",
                    "[[attack]]",
                    'name = "stubs"',
                    f"set.attack.strength = {list(STRENGTHS)}",
                    "[[attack]]",
                    'name = "stubs_surrogate"',
                    "",
                ]
            ),
            encoding="utf-8",
        )
        return find_suite(str(path))

    def lay_out(self, suite: Suite) -> tuple[Cache, Layout]:
        """The cache of the main process, and the layout."""
        cache = Cache(self.cache)
        cpu = torch.device("cpu")
        return cache, lay_out(suite.runs, cache=cache, results=self.results, device=cpu, threads=1)


def load_stubs() -> None:
    """Load the plugin into this process, whose own stages are stubs from now on."""
    load_plugin(PLUGIN)
