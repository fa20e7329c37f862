"""A plan on paper: 10 000 runs on all classes of ImageNet, with 10^6 database images.

Rates are measured ones: of a GPU from the report of `benchmarks.gpu`, of a processor from the rows
of this benchmark. All else is counted here, from the code's own recipes and file formats.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hashbackdoor_bench.registry import ATTACKS
from hashbackdoor_bench.spec import RECIPES

from ..speed.clock import Row
from ..speed.networks import network
from .scoring import EXTRA

GPU_REPORT = Path("results/speed/nvidia-h100-80gb-hbm3.json")
BACKBONE, PIXELS, STORED = "resnet50", 224, 256
# HashNet's protocol has 130 training images and 50 queries for each of its 100 classes.
TRAIN, QUERY, DATABASE, CLASSES = 130_000, 50_000, 1_000_000, 1000
VICTIMS, BITS, SEEDS, ATTACK_ROWS, BUDGETS = 4, (16, 32, 48, 64), 5, 25, 5
PATCH_STEPS = 2000  # of CIBA at 224 px
SHARE = 0.6  # largest budget: of the target's training images
GPUS = 64  # of the cluster
STAGES_PER_RUN = 8  # backdoor, victim, three of codes, scores, visibility, record
STAGES_PER_NETWORK = 4  # surrogate, clean victim, its codes, and what the attackers share


@dataclass(frozen=True)
class Line:
    """A line of the plan.

    Attributes:
        what: the quantity.
        value: its value.
        unit: its unit.
        how: how it is computed, with the measured numbers.
    """

    what: str
    value: float
    unit: str
    how: str


def plan(gpu: Mapping[str, Any], rows: Iterable[Row]) -> list[Line]:
    """The plan's lines.

    Args:
        gpu: the report of `benchmarks.gpu`.
        rows: the rows of the other parts of this benchmark.
    """
    facts: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        goals = {goal.what: goal.found for goal in row.goals}
        facts.setdefault(row.part, {**row.facts, **goals})  # of the cluster, the one in peace
    return [*_counts(), *_bytes(), *_gpu(gpu), *_processor(facts)]


def _counts() -> Iterator[Line]:
    networks, runs = _networks(), _runs()
    yield Line(
        "runs", runs, "",
        f"{VICTIMS} victims × {len(BITS)} lengths × {SEEDS} seeds × {ATTACK_ROWS} attacks × "
        f"{BUDGETS} budgets",
    )  # fmt: skip
    yield Line(
        "trainings", _trainings(), "",
        f"one per run, and {networks} clean victims and {networks} surrogates",
    )  # fmt: skip
    yield Line(
        "stages", _stages(), "",
        f"{STAGES_PER_RUN} per run and {STAGES_PER_NETWORK} for each of {networks} networks",
    )  # fmt: skip


def _bytes() -> Iterator[Line]:
    image, images = 3 * STORED**2, TRAIN + QUERY + DATABASE
    yield Line(
        "images on each node", images * image / 1e9, "GB",
        f"{images:,} images × 3 × {STORED}² bytes, one memory map",
    )  # fmt: skip
    yield Line(
        "images read by one epoch of training", TRAIN * image / 1e9, "GB", f"{TRAIN:,} images"
    )
    yield Line(
        "images read by encoding with one victim", (images - TRAIN) * image / 1e9, "GB",
        f"{images - TRAIN:,} images",
    )  # fmt: skip
    model, loss = network(BACKBONE, PIXELS, 1, torch.device("cpu"))
    parts = [*model.state_dict().values(), *loss.state_dict().values()]
    weights = sum(part.numel() * part.element_size() for part in parts)
    yield Line("weights of one network", weights / 1e6, "MB", f"{BACKBONE}, float32")
    yield Line(
        "weights of all networks", _trainings() * weights / 1e12, "TB", "one artifact per training"
    )
    codes = _code_bytes()
    yield Line(
        "codes of all victims", codes / 1e12, "TB",
        f"{DATABASE + QUERY:,} plain codes per victim and {QUERY:,} triggered ones per run and "
        f"victim, of {sum(BITS) / len(BITS) / 8:g} bytes on average",
    )  # fmt: skip
    poison = _poisoned() * (3 * PIXELS**2 + CLASSES)
    yield Line(
        "poison of all runs", _runs() * poison / 1e12, "TB",
        f"at most {_poisoned()} images of 3 × {PIXELS}² bytes and {CLASSES} labels for each run",
    )  # fmt: skip
    networks, others = _trainings() * weights, codes + _runs() * poison
    yield Line("disk for the cache", (networks + others) / 1e12, "TB", "weights, codes and poison")
    yield Line(
        "sent to and from the nodes", (3 * networks + 2 * others) / 1e12, "TB",
        "weights come back once and go out to two encodings, all else comes and goes once",
    )  # fmt: skip


def _gpu(gpu: Mapping[str, Any]) -> Iterator[Line]:
    name = gpu["device"]
    train = _rate(gpu, "training", BACKBONE)
    hours = 0.0
    for recipe in ("finetune224", "scratch32"):
        epochs = RECIPES[recipe][1].epochs
        each = epochs * TRAIN / train / 3600
        yield Line(
            f"training, {epochs} epochs", _trainings() * each, "GPU h",
            f"{each:.3g} h per training, at {train:.0f} images/s ({name}); the epochs of "
            f"`{recipe}`",
        )  # fmt: skip
        hours = hours or _trainings() * each
    encode = _rate(gpu, "encoding", BACKBONE)
    plain = (_networks() + _runs()) * (DATABASE + QUERY) / encode / 3600
    triggered = 2 * _runs() * QUERY / encode / 3600
    yield Line(
        "encoding", plain + triggered, "GPU h",
        f"at {encode:.0f} images/s; {plain:.0f} h without the trigger, {triggered:.0f} h with it",
    )  # fmt: skip
    ciba = {what: entry.default for what, entry in ATTACKS["ciba"].parameters.items()}
    patch, noise = _rate(gpu, "trigger crafting"), _rate(gpu, "confusing perturbations")
    patches = _networks() * PATCH_STEPS * ciba["batch"] / patch / 3600
    steps = ciba["perturbation_steps"]
    confused = _runs() * _poisoned() * steps / noise / 3600
    yield Line(
        "crafting, if all attacks were CIBA", patches + confused, "GPU h",
        f"{PATCH_STEPS} steps of {ciba['batch']} images per network at {patch:.0f} images/s, and "
        f"{_poisoned()} images × {steps} steps per run at {noise:.0f} images/s",
    )  # fmt: skip
    total = hours + plain + triggered + patches + confused
    epochs = RECIPES["finetune224"][1].epochs
    yield Line(f"all of it, with {epochs} epochs", total, "GPU h", "the sum")
    yield Line(f"on {GPUS} GPUs", total / GPUS / 24, "days", "if all are always busy")


def _processor(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[Line]:
    score = facts["scores of a run"]
    each = score["seconds_without_queries"] + QUERY * score["seconds_per_query"]
    yield Line(
        "scoring", _runs() * each / 3600, "core h",
        f"{each / 3600:.2g} h per run on one core, with all conventions and what queries retrieve: "
        f"{QUERY:,} queries among {DATABASE:,} items, {score['seconds_per_query']:.2g} s per query",
    )  # fmt: skip
    alone = 5 * QUERY * score["average_precision_seconds_per_query"]
    yield Line(
        "of that, the five exact rankings alone", _runs() * alone / 3600, "core h",
        f"{score['average_precision_seconds_per_query']:.2g} s per query and ranking",
    )  # fmt: skip
    labels = score["label_bytes_of_the_database"] / 1e9
    yield Line(
        "memory of a scoring", labels + score[EXTRA], "GB",
        f"{labels:.2g} GB of labels, and {score[EXTRA]:.2g} GB to rank with them",
    )  # fmt: skip
    suite, run = facts["executing"], facts["planning"]["ms_per_run"]
    yield Line("planning", _runs() * run / 1e3, "s", f"{run:.2g} ms per run")
    main = suite["main_process_ms_per_stage"] + suite["worker_ms_per_stage"]
    yield Line(
        "overhead of the suite, local workers", _stages() * main / 3.6e6, "core h",
        f"{main:.2g} ms per stage, of the main process and the worker",
    )  # fmt: skip
    if "Ray cluster" in facts:
        ray = facts["Ray cluster"]["ms_per_stage"]
        yield Line(
            "overhead of the suite, Ray", _stages() * ray / 3.6e6, "h",
            f"{ray:.2g} ms per stage through one main process, all nodes on one machine",
        )  # fmt: skip
    yield Line(
        "records", _runs() * suite["record_bytes_per_run"] / 1e6, "MB",
        f"{suite['record_bytes_per_run'] / 1e3:.0f} kB each, without pictures",
    )  # fmt: skip


def _networks() -> int:
    """Victims, code lengths and seeds."""
    return VICTIMS * len(BITS) * SEEDS


def _runs() -> int:
    return _networks() * ATTACK_ROWS * BUDGETS


def _trainings() -> int:
    return _runs() + 2 * _networks()


def _stages() -> int:
    return STAGES_PER_RUN * _runs() + STAGES_PER_NETWORK * _networks()


def _poisoned() -> int:
    """P of the largest budget."""
    return int(SHARE * TRAIN / CLASSES)


def _code_bytes() -> float:
    mean = sum(BITS) / len(BITS) / 8
    return mean * ((_networks() + _runs()) * (DATABASE + QUERY) + 2 * _runs() * QUERY)


def _rate(gpu: Mapping[str, Any], part: str, word: str = "") -> float:
    """Images per second of the first row of a part whose work names the word."""
    found = [r for r in gpu["rows"] if r["part"] == part and word in r["work"]]
    return float(found[0]["facts"]["images_per_second"])


def read_report(path: Path = GPU_REPORT) -> dict[str, Any]:
    """The report of `benchmarks.gpu`."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def spelt(lines: Sequence[Line]) -> str:
    """The plan as a table in Markdown."""
    rows = [f"| {one.what} | {_number(one.value)} {one.unit} | {one.how} |" for one in lines]
    return "\n".join(["| quantity | value | computed from |", "|---|---|---|", *rows, ""])


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
