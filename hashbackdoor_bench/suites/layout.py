"""A suite as one graph of stages: what it is made of, and which stage is made next.

Runs share stages, so a stage stands in the graph once and serves all cells that have it. Nothing is
computed here: a plan gives the keys of all stages, and the cache says which are there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hashbackdoor_bench.errors import UserError
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import read_record, record_key, record_path
from hashbackdoor_bench.spec import RunSpec
from hashbackdoor_bench.stages import Cache, Loaded, Plan, attacker_of, load_data, use
from hashbackdoor_bench.suites.suite import Cell

SORTS = (
    "train surrogate",
    "craft backdoor",
    "train clean victim",
    "train poisoned victim",
    "codes",
    "scores",
    "visibility",
)
RECORD = "record"  # the name and kind of the last node of a run: its record and its pictures


@dataclass(frozen=True, eq=False)
class Node:
    """A stage, or the record of a run.

    Attributes:
        kind: see `Stage`; or ``RECORD``.
        key: of the artifact, or of the record.
        title: for a person.
        inputs: see `Stage`.
        cell: a run that has it.
        spec: of that run, its precision resolved by the driver, so that all workers take one.
        name: what it is called in that run's plan.
        needs: the nodes that it reads.
        attacker: of a backdoor, see `attacker_of`: two with one attacker may want one shared stage,
            and are not made at the same time, because one would wait for the other.
    """

    kind: str
    key: str
    title: str
    inputs: Mapping[str, Any]
    cell: Cell
    spec: RunSpec
    name: str
    needs: tuple["Node", ...]
    attacker: str | None = None

    @property
    def sort(self) -> str:
        """What it is counted under: one of ``SORTS``."""
        return self.title if self.kind in ("train", "backdoor") else self.kind


@dataclass(frozen=True, eq=False)
class Planned:
    """A cell with its nodes.

    Attributes:
        cell: of the suite.
        path: where its record stands, or will.
        nodes: all that it is made of, in order; the last is its record.
        uses: what it reads or makes, for `in_use`.
    """

    cell: Cell
    path: Path
    nodes: tuple[Node, ...]
    uses: frozenset[str]


@dataclass(frozen=True)
class Failure:
    """A cell that did not end.

    Attributes:
        cell: of the suite.
        stage: where it stopped.
        message: why.
    """

    cell: Cell
    stage: str
    message: str


@dataclass
class Graph:
    """The stages of a suite.

    Attributes:
        planned: the cells that can be run.
        refused: the cells that can't, as nothing of them could be planned.
        nodes: by key, each once; those of a cell's inputs come before it.
        done: keys of those that are made.
    """

    planned: list[Planned] = field(default_factory=list)
    refused: list[Failure] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    @property
    def missing(self) -> list[Planned]:
        """The cells without a record."""
        return [one for one in self.planned if one.nodes[-1].key not in self.done]

    @property
    def uses(self) -> set[str]:
        """What all cells read or make, for `in_use`."""
        return {key for one in self.planned for key in one.uses}


def describe(cell: Cell) -> str:
    """A cell for a person."""
    spec = cell.spec
    return f"{cell.label} on {spec.victim}, {spec.bits} bits, seed {spec.seed}"


class Shelf:
    """Data sets by what names them: each is loaded and hashed once for all runs on it."""

    def __init__(self, cache: Cache, progress: Progress = silent) -> None:
        self.cache, self.progress = cache, progress
        self.loaded: dict[tuple[object, ...], Loaded] = {}

    def __call__(self, spec: RunSpec) -> Loaded:
        """The data of a run."""
        name = (spec.dataset, spec.lists, spec.root, spec.top_k, spec.size)
        if name not in self.loaded:
            self.loaded[name] = Loaded(load_data(spec, self.cache, self.progress))
        return self.loaded[name]


def lay_out(
    cells: Iterable[Cell],
    *,
    cache: Cache,
    results: Path,
    device: torch.device,
    progress: Progress = silent,
) -> Graph:
    """The graph of a suite's cells, and which nodes of it are made.

    Args:
        cells: of the suite.
        cache: where artifacts are.
        results: folder of the records.
        device: where it would be computed; decides the precision.
        progress: told if data is prepared first.

    Raises:
        UserError: no cell can be planned; of the first that can't.
    """
    graph, shelf = Graph(), Shelf(cache, progress)
    for cell in cells:
        try:
            plan = Plan(cell.spec, cache=cache, device=device, loaded=shelf(cell.spec))
            graph.planned.append(_planned(graph.nodes, cell, plan, results))
        except UserError as error:
            where = f"suite {cell.suite}, {cell.key_path}"
            graph.refused.append(Failure(cell, "plan", f"{where}: {error}"))
    if graph.refused and not graph.planned:
        raise UserError(graph.refused[0].message)
    for node in graph.nodes.values():
        if node.kind != RECORD and cache.has(node.kind, node.key):
            graph.done.add(node.key)
    for one in graph.planned:
        if stands(one.path, one.nodes[-1].key):
            graph.done.add(one.nodes[-1].key)
    return graph


def _planned(nodes: dict[str, Node], cell: Cell, plan: Plan, results: Path) -> Planned:
    """A cell's nodes; those that are new are added to ``nodes``."""
    mine: dict[str, Node] = {}
    needs, spec = plan.needs, replace(cell.spec, precision=plan.spec.precision)
    for name, stage in plan.stages.items():
        mine[name] = nodes.setdefault(
            stage.key,
            Node(
                stage.kind,
                stage.key,
                stage.title,
                stage.inputs,
                cell,
                spec,
                name,
                tuple(dict.fromkeys(mine[other] for other in needs[name])),
                attacker_of(stage.inputs) if stage.kind == "backdoor" else None,
            ),
        )
    key = record_key(plan.spec, {name: node.key for name, node in mine.items()})
    parts = tuple(dict.fromkeys(mine.values()))
    record = nodes.setdefault(
        key, Node(RECORD, key, "write the record", {}, cell, spec, RECORD, parts)
    )
    path = record_path(results, plan.spec, key)
    return Planned(cell, path, (*parts, record), frozenset(use(plan)))


def stands(path: Path, key: str) -> bool:
    """Whether the record of this key is there and can be read."""
    try:
        return path.is_file() and read_record(path).key == key
    except UserError:
        return False


class Schedule:
    """Which node is made next, so that none waits for another and cells end early.

    Args:
        graph: of the suite; only what a cell without a record needs is made.
    """

    def __init__(self, graph: Graph) -> None:
        self.cells: Sequence[Planned] = graph.missing
        self.done = graph.done
        self.todo = {
            node.key for one in self.cells for node in one.nodes if node.key not in self.done
        }
        self.running: dict[str, Node] = {}
        self.failed: set[str] = set()

    @property
    def live(self) -> list[Planned]:
        """Cells that can still end, the one with the fewest nodes left first."""
        cells = [one for one in self.cells if not any(n.key in self.failed for n in one.nodes)]
        left = [sum(node.key not in self.done for node in one.nodes) for one in cells]
        order = sorted((count, place) for place, count in enumerate(left) if count)
        return [cells[place] for _, place in order]

    def take(self) -> Node | None:
        """A node whose inputs are there, now running; None if there is none at the moment."""
        crafting = {node.attacker for node in self.running.values() if node.attacker}
        for one in self.live:
            for node in one.nodes:
                if (
                    node.key not in self.done
                    and node.key not in self.running
                    and node.attacker not in crafting
                    and all(other.key in self.done for other in node.needs)
                ):
                    self.running[node.key] = node
                    return node
        return None

    def finish(self, node: Node) -> list[Planned]:
        """The cells that ended with this node."""
        del self.running[node.key]
        self.done.add(node.key)
        return [one for one in self.cells if one.nodes[-1] is node]

    def fail(self, node: Node) -> list[Planned]:
        """The cells that can't end without this node."""
        del self.running[node.key]
        self.failed.add(node.key)
        return [one for one in self.cells if node in one.nodes]

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing is left that could."""
        return not self.running and not self.live
