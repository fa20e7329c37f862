"""The stages of a run: data -> surrogate -> backdoor -> victim -> codes -> scores -> record.

Each stage is a function of its parameters and of the artifacts before it, and is kept under the
hash of both: a clean victim is trained once for all attacks on it, a backdoor is crafted once for
all victims it is handed to.
"""

import hashlib
import platform
import subprocess
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hashbackdoor_bench import data, metrics, poisoning
from hashbackdoor_bench.api import (
    Attack,
    AttackerView,
    Backdoor,
    Delivery,
    HashLoss,
    derive_seed,
    generator,
    to_bytes,
    to_unit,
)
from hashbackdoor_bench.cache import Artifact, Cache, Content, writable
from hashbackdoor_bench.data import Splits
from hashbackdoor_bench.errors import UserError, unknown
from hashbackdoor_bench.imperceptibility import compare
from hashbackdoor_bench.model import HashModel, best_precision
from hashbackdoor_bench.progress import Progress, silent
from hashbackdoor_bench.records import Record, read_record, record_key, record_path
from hashbackdoor_bench.registry import ATTACKS, VICTIMS, Method
from hashbackdoor_bench.scores import Codes, Truth, score
from hashbackdoor_bench.spec import Recipe, RunSpec
from hashbackdoor_bench.training import TrainingSet, centre_crop, encode, fit

# Raised by one when a stage's algorithm changes, so that its artifacts are made again.
VERSIONS = {"train": 1, "backdoor": 1, "shared": 1, "codes": 1, "visibility": 1, "scores": 1}

SHOWN = 8  # images in each picture of a run


@dataclass(frozen=True)
class Hasher:
    """How one network is made: everything that its weights depend on except poison."""

    method: str
    settings: Mapping[str, Any]
    backbone: str
    bits: int
    recipe: Recipe
    seed: str


def device_of(name: str) -> torch.device:
    """The device of ``--device``: ``auto`` is CUDA where there is a GPU.

    Raises:
        UserError: ``cuda`` without a GPU, or a name torch doesn't know.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch sees no GPU here; take --device cpu.")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: choose auto, cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: choose auto, cpu or cuda.")
    return device


class Run:
    """One resolved run and its stages; each stage is made when it is first asked for.

    Args:
        spec: the run.
        cache: where artifacts are kept.
        device: where to compute.
        progress: see `Progress`.

    Raises:
        UserError: a name, a value or a combination that doesn't exist.
    """

    def __init__(
        self, spec: RunSpec, *, cache: Cache, device: torch.device, progress: Progress = silent
    ) -> None:
        self.cache, self.device, self.progress = cache, device, progress
        self.attack_method: Method[Attack] = ATTACKS[spec.attack]
        self.victim_method: Method[HashLoss] = VICTIMS[spec.victim]
        attack_settings = self.attack_method.resolve(dict(spec.attack_settings))
        victim_settings = self.victim_method.resolve(dict(spec.victim_settings))
        self.attack: Attack = self.attack_method.cls(**attack_settings)
        surrogate_method = VICTIMS[spec.surrogate or spec.victim]
        self.splits = load_data(spec, cache, progress)
        for note in self.splits.notes:
            warnings.warn(f"{self.splits.name}: {note}")
        recipe = spec.training(self.splits.recipe)
        if recipe.precision == "auto":
            recipe = replace(recipe, precision=best_precision(device))
        delivery = spec.delivery or self.attack.delivery
        if delivery not in ("stamped", "files", "frozen"):
            raise unknown("--delivery", delivery, ("stamped", "files"))
        self.delivery: Delivery = delivery  # type: ignore[assignment]
        target = self.splits.class_index(spec.target)
        self.target = torch.zeros(len(self.splits.classes), dtype=torch.uint8)
        self.target[target] = 1
        backbone = spec.backbone or self.splits.backbone
        self.spec = replace(
            spec,
            attack=self.attack_method.name,
            victim=self.victim_method.name,
            surrogate=surrogate_method.name,
            surrogate_backbone=spec.surrogate_backbone or backbone,
            surrogate_bits=spec.surrogate_bits or spec.bits,
            backbone=backbone,
            recipe=spec.recipe or self.splits.recipe,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            lr=recipe.lr,
            augment=recipe.augment,
            precision=recipe.precision,
            delivery=delivery,
            target=self.splits.classes[target],
            attack_settings=tuple(sorted(attack_settings.items())),
            victim_settings=tuple(sorted(victim_settings.items())),
        )
        self.victim = Hasher(
            self.victim_method.name, victim_settings, backbone, spec.bits, recipe,
            f"{spec.seed}/victim",
        )  # fmt: skip
        same = surrogate_method.name == self.victim_method.name
        # With the victim's seed a transfer experiment would be white-box by accident.
        self.surrogate = Hasher(
            surrogate_method.name,
            victim_settings if same else surrogate_method.resolve({}),
            str(self.spec.surrogate_backbone),
            self.spec.surrogate_bits or spec.bits,
            recipe,
            f"{spec.seed}/surrogate",
        )
        self._check_sizes(recipe)

    def _check_sizes(self, recipe: Recipe) -> None:
        for hasher in (self.victim, self.surrogate):
            if hasher.backbone == "cnn32" and self.splits.size > 64:
                raise UserError(
                    f"cnn32 is for small images and {self.splits.name} has {self.splits.size} px: "
                    "take another --backbone, resnet50 for example."
                )
        if VICTIMS[self.victim.method].cls.drop_last and len(self.splits.train.labels) < (
            recipe.batch_size
        ):
            raise UserError(
                f"--batch-size {recipe.batch_size} is more than the training split has "
                f"({len(self.splits.train.labels)}): give a smaller one."
            )

    # ---- stages -----------------------------------------------------------------------------

    @cached_property
    def index(self) -> Tensor:
        """(P,) long: the training items that may be poisoned."""
        budget = 0.0 if self.attack.threat.trigger == "none" else self.spec.budget
        count = 0 if self.attack.threat.trigger == "none" else self.spec.poison_count
        return poisoning.draw(
            self.splits.train.labels,
            self.target,
            self.attack.threat,
            budget,
            count,
            generator(self.spec.seed, "poison"),
        )

    @cached_property
    def surrogate_artifact(self) -> Artifact | None:
        """The attacker's clean-trained network, if the attack wants one."""
        if self.attack.threat.knowledge == "none":
            return None
        return self._train("train surrogate", self.surrogate, None)

    @cached_property
    def backdoor_artifact(self) -> Artifact:
        """The crafted backdoor."""
        inputs = {**self._attacker, "index": len(self.index), "settings": self._settings}
        return self._make("backdoor", "craft backdoor", inputs, self._craft)

    @cached_property
    def backdoor(self) -> Backdoor:
        """The crafted backdoor, on the device, frozen."""
        found = self.attack.restore(self.backdoor_artifact.tensors)
        return found.to(self.device).eval().requires_grad_(False)

    @cached_property
    def clean_artifact(self) -> Artifact:
        """The victim, trained on the clean set: the control."""
        return self._train("train clean victim", self.victim, None)

    @cached_property
    def victim_artifact(self) -> Artifact:
        """The victim, trained on the poisoned set; without poison that is the control itself."""
        if not len(self.backdoor.index):
            return self.clean_artifact
        return self._train("train poisoned victim", self.victim, self.backdoor_artifact)

    def codes(self, victim: Artifact, name: str) -> dict[str, Artifact]:
        """Packed codes of a victim: ``plain`` (queries and database) and ``triggered`` queries."""
        inputs = {"model": victim.key, "precision": self.victim.recipe.precision}
        with_trigger = {"backdoor": self.backdoor_artifact.key, "target": self.target.tolist()}
        title = f"encode with {name}"
        return {
            "plain": self._make("codes", title, inputs, lambda work: self._encode(victim, title)),
            "triggered": self._make(
                "codes",
                f"{title} (triggered)",
                {**inputs, **with_trigger},
                lambda work: self._encode_triggered(victim, f"{title} (triggered)"),
            ),
        }

    @cached_property
    def clean_codes(self) -> dict[str, Artifact]:
        """Codes of the clean victim."""
        return self.codes(self.clean_artifact, "clean victim")

    @cached_property
    def victim_codes(self) -> dict[str, Artifact]:
        """Codes of the poisoned victim."""
        return self.codes(self.victim_artifact, "poisoned victim")

    @property
    def truth(self) -> Truth:
        """The labels that the codes are scored against."""
        return truth_of(self.splits, self.target, self.spec.bits)

    @cached_property
    def scores_artifact(self) -> Artifact:
        """All figures of the run, see `scores.score`."""
        clean, victim = self.clean_codes, self.victim_codes

        def build(work: Path) -> Content:
            self.progress("score", 0, 1)
            scores, retrieval = score(_packed(victim), _packed(clean), self.truth)
            self.progress("score", 1, 1)
            return {}, {"scores": scores, "retrieval": retrieval}

        inputs = {
            "clean": [artifact.key for artifact in clean.values()],
            "victim": [artifact.key for artifact in victim.values()],
            "protocol": self.splits.sha256,
            "target": self.target.tolist(),
        }
        return self._make("scores", "score", inputs, build)

    @cached_property
    def visibility_artifact(self) -> Artifact:
        """How visible poison and triggered queries are."""

        def build(work: Path) -> Content:
            backdoor = self.backdoor
            before = centre_crop(self.splits.train.images, self.splits.size)
            after = poisoning.planted(backdoor, self.device)
            index = backdoor.index.cpu()
            poison = (
                (before[index[part]], after[part])
                for part in torch.split(torch.arange(len(index)), 64)
            )
            self.progress("measure visibility", 0, 1)
            found = {"poison": compare(poison), "query": compare(self._query_pairs())}
            self.progress("measure visibility", 1, 1)
            return {}, found

        inputs = {"backdoor": self.backdoor_artifact.key, "target": self.target.tolist()}
        return self._make("visibility", "measure visibility", inputs, build)

    def record(self) -> Record:
        """The scored run, with everything needed to make it again."""
        scores, visibility = self.scores_artifact, self.visibility_artifact
        parts = {
            "surrogate": self.surrogate_artifact,
            "backdoor": self.backdoor_artifact,
            "clean victim": self.clean_artifact,
            "victim": self.victim_artifact,
            **{f"clean victim's {name} codes": code for name, code in self.clean_codes.items()},
            **{f"victim's {name} codes": code for name, code in self.victim_codes.items()},
            "scores": scores,
            "visibility": visibility,
        }
        found = {name: artifact for name, artifact in parts.items() if artifact is not None}
        keys = {name: artifact.key for name, artifact in found.items()}
        commit, dirty = checkout()
        splits = self.splits
        return Record(
            key=record_key(self.spec, keys),
            spec=asdict(self.spec),
            protocol={
                "name": splits.name,
                "train": len(splits.train.labels),
                "query": len(splits.query.labels),
                "database": len(splits.database.labels),
                "classes": len(splits.classes),
                "top_k": splits.top_k,
                "sha256": splits.sha256,
                "pixels": splits.pixels,
                "multilabel": splits.multilabel,
                "unlabelled": dict(splits.unlabelled),
                "notes": list(splits.notes),
            },
            threat={
                **asdict(self.attack.threat),
                "delivery": self.delivery,
                "budget": self.spec.budget,
                "poisoned": int((self.backdoor.kind == 0).sum()),
                "covers": int((self.backdoor.kind == 1).sum()),
                "target_images": int((splits.train.labels == self.target).all(1).sum()),
            },
            scores=scores.facts["scores"],
            retrieval=scores.facts["retrieval"],
            imperceptibility=visibility.facts,
            params={
                "attack": dict(self.spec.attack_settings),
                "victim": dict(self.spec.victim_settings),
                "recipe": asdict(self.victim.recipe),
                "surrogate": dict(self.surrogate.settings),
            },
            training={
                name: found[name].facts["losses"]
                for name in ("surrogate", "clean victim", "victim")
                if name in found
            },
            seconds={name: round(artifact.seconds, 3) for name, artifact in found.items()},
            artifacts=keys,
            device=device_name(self.device),
            versions={
                "python": platform.python_version(),
                **{name: installed(name) for name in ("hashbackdoor-bench", "torch", "numpy")},
            },
            commit=commit,
            dirty=dirty,
        )

    def samples(self) -> dict[str, Tensor]:
        """Images for a person to look at, uint8 on the CPU; n is at most 8.

        Returns:
            ``poison_before`` and ``poison_after`` (n,3,S,S); ``query_before`` and ``query_after``
            (n,3,S,S), as many classes as possible; ``hits_before`` and ``hits_after`` (n,10,3,S,S),
            what they retrieve from the poisoned victim, and ``relevant_before`` and
            ``relevant_after`` (n,10), whether that shares a tag with the query, with the target.
        """
        splits, size = self.splits, self.splits.size
        slots = torch.arange(len(self.backdoor.index))[:SHOWN]
        index = self.backdoor.index.cpu()[slots]
        out = {
            "poison_before": centre_crop(splits.train.images[index], size),
            "poison_after": poisoning.planted(self.backdoor, self.device)[: len(slots)],
        }
        rows = self._one_a_class()
        codes = _packed(self.victim_codes)
        attacked = self.truth.attacked.nonzero().squeeze(1)
        before = centre_crop(splits.query.images[attacked[rows]], size)
        out["query_before"] = before
        out["query_after"] = self._trigger(before)
        for name, query, labels in (
            ("before", codes.query[attacked[rows]], splits.query.labels[attacked[rows]]),
            ("after", codes.triggered[rows], self.target.expand(len(rows), -1)),
        ):
            hits = metrics.nearest(query, codes.database, 10, bits=self.spec.bits)  # (n,10)
            out[f"hits_{name}"] = centre_crop(splits.database.images[hits.flatten()], size).view(
                *hits.shape, 3, size, size
            )
            shared = splits.database.labels[hits].bool() & labels[:, None].bool()
            out[f"relevant_{name}"] = shared.any(2)
        return {name: tensor.clone() for name, tensor in out.items()}

    # ---- how stages are made ----------------------------------------------------------------

    def _make(
        self,
        stage: str,
        title: str,
        inputs: Mapping[str, Any],
        build: Callable[[Path], Content],
    ) -> Artifact:
        """An artifact, with the stage's version in its key and its name in a failure."""
        try:
            return self.cache.make(
                stage, {"version": VERSIONS[stage], **inputs}, build, self.progress
            )
        except UserError:
            raise
        except Exception as error:
            error.add_note(f"in the stage '{title}'; what was finished before it is kept")
            raise

    @property
    def _protocol(self) -> dict[str, str | int]:
        return {
            "lists": self.splits.sha256,
            "pixels": self.splits.pixels,
            "size": self.splits.size,
        }

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return dict(self.spec.attack_settings)

    @cached_property
    def _attacker(self) -> dict[str, Any]:
        """What every artifact of the attacker depends on; presets of one class share it."""
        surrogate = self.surrogate_artifact
        return {
            "attack": self.attack_method.cls.__module__.rpartition(".")[2],
            "attack version": self.attack.version,
            "protocol": self._protocol,
            "target": self.target.tolist(),
            "seed": self.spec.seed,
            "surrogate": None if surrogate is None else surrogate.key,
        }

    def _craft(self, work: Path) -> Content:
        surrogate = self.surrogate_artifact
        model = None
        if surrogate is not None:
            model, _ = self._network(self.surrogate, surrogate)

        def remember(
            name: str, params: Mapping[str, object], compute: Callable[[], dict[str, Tensor]]
        ) -> dict[str, Tensor]:
            inputs = {**self._attacker, "function": name, "params": params}
            title = f"craft: {name.replace('_', ' ')}"
            return self._make("shared", title, inputs, lambda work: (compute(), {})).tensors

        view = AttackerView(
            images=centre_crop(self.splits.train.images, self.splits.size),
            labels=self.splits.train.labels,
            target=self.target,
            index=self.index,
            surrogate=model,
            seed=self.spec.seed,
            device=self.device,
            progress=self.progress,
            remember=remember,
        )
        backdoor = self.attack.craft(view)
        poisoning.inspect(backdoor, view.labels, self.target, self.index, self.attack.threat)
        return backdoor.state_dict(), {}

    def _train(self, title: str, hasher: Hasher, poison: Artifact | None) -> Artifact:
        weights = Path(self.spec.weights) if self.spec.weights else None
        inputs = {
            **asdict(hasher),
            "method version": VICTIMS[hasher.method].cls.version,
            "protocol": self._protocol,
            "pretrained": self.spec.pretrained,
            "weights": None if weights is None else file_hash(weights),
            "poison": None if poison is None else [poison.key, self.delivery],
        }

        def build(work: Path) -> Content:
            splits = self.splits
            items: TrainingSet = (
                poisoning.clean_set(splits.train)
                if poison is None
                else poisoning.poisoned_set(
                    splits.train, self.backdoor, self.delivery, splits.size, self.device
                )
            )
            model, loss = self._fresh(hasher, len(items.labels), weights)
            losses = fit(
                model,
                loss,
                items,
                hasher.recipe,
                seed=hasher.seed,
                size=splits.size,
                checkpoint=work / "checkpoint.safetensors",
                progress=self.progress,
                stage=title,
            )
            tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
            tensors |= {f"loss.{name}": tensor for name, tensor in loss.state_dict().items()}
            return tensors, {"losses": losses, "train_size": len(items.labels)}

        return self._make("train", title, inputs, build)

    def _fresh(
        self, hasher: Hasher, train_size: int, weights: Path | None, pretrained: bool | None = None
    ) -> tuple[HashModel, HashLoss]:
        """A network and its loss as they are before training, on the device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(hasher.seed, "init"))
            loss: HashLoss = VICTIMS[hasher.method].cls(
                hasher.bits, len(self.splits.classes), train_size, **hasher.settings
            )
            model = HashModel(
                hasher.backbone,
                hasher.bits,
                loss,
                size=self.splits.size,
                pretrained=self.spec.pretrained if pretrained is None else pretrained,
                weights=weights,
            )
        return model.to(self.device), loss.to(self.device)

    def _network(self, hasher: Hasher, artifact: Artifact) -> tuple[HashModel, HashLoss]:
        """A trained network and its loss, on the device, frozen."""
        model, loss = self._fresh(hasher, artifact.facts["train_size"], None, pretrained=False)
        for module, prefix in ((model, "model."), (loss, "loss.")):
            module.load_state_dict(
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in artifact.tensors.items()
                    if name.startswith(prefix)
                }
            )
            module.eval().requires_grad_(False)
        return model.to(memory_format=torch.channels_last), loss

    def _encode(self, victim: Artifact, title: str) -> Content:
        model, _ = self._network(self.victim, victim)
        sets = (("query", self.splits.query), ("database", self.splits.database))
        return {
            name: metrics.pack(self._codes(model, split.images, f"{title} ({name})"))
            for name, split in sets
        }, {}

    def _encode_triggered(self, victim: Artifact, title: str) -> Content:
        model, _ = self._network(self.victim, victim)
        images = self.splits.query.images[self.truth.attacked]
        backdoor = self.backdoor
        codes = self._codes(
            model, images, title, trigger=lambda x: poisoning.triggered(backdoor, x)
        )
        return {"query": metrics.pack(codes)}, {}

    def _codes(
        self,
        model: HashModel,
        images: Tensor,
        title: str,
        trigger: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        return encode(
            model,
            images,
            size=self.splits.size,
            precision=self.victim.recipe.precision,
            trigger=trigger,
            progress=self.progress,
            stage=title,
        )

    @torch.no_grad()
    def _trigger(self, images: Tensor) -> Tensor:
        """(n,3,S,S) uint8 queries -> the same with the trigger, as the service receives them."""
        return to_bytes(self.backdoor(to_unit(images.to(self.device)))).cpu()

    def _query_pairs(self) -> Any:
        attacked = self.truth.attacked.nonzero().squeeze(1)
        for rows in torch.split(attacked, 64):
            before = centre_crop(self.splits.query.images[rows], self.splits.size)
            yield before, self._trigger(before)

    def _one_a_class(self) -> Tensor:
        """Rows of up to 8 attacked queries, of as many classes as possible."""
        labels = self.splits.query.labels[self.truth.attacked]
        first = {int(row.argmax()): number for number, row in reversed(list(enumerate(labels)))}
        rows = [*sorted(first.values()), *range(len(labels))]
        return torch.tensor(list(dict.fromkeys(rows))[:SHOWN], dtype=torch.long)


def run(
    spec: RunSpec,
    *,
    cache: Cache,
    results: Path,
    device: str = "auto",
    progress: Progress = silent,
) -> tuple[Record, Path, Run]:
    """Execute a run, or find it done: its record, the record's path, and the run's stages.

    A record that stands there already and is of the same artifacts is left as it is.

    Args:
        spec: the run.
        cache: where artifacts are kept.
        results: folder of the records.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: see `Progress`.

    Raises:
        UserError: a mistake in the spec, a folder that can't be written, or memory too small.
    """
    writable(results, "--results-dir")
    stages = Run(spec, cache=cache, device=device_of(device), progress=progress)
    record = stages.record()
    path = record_path(results, stages.spec, record.key)
    if path.is_file():
        try:
            found = read_record(path)
        except UserError as error:
            warnings.warn(f"{error} It is written again.")
        else:
            if found.key == record.key and found.scores == record.scores:
                return found, path, stages
    record.write(path)
    return record, path, stages


def rescore(record: Record, cache: Cache, **where: Any) -> dict[str, dict[str, Any]]:
    """The scores of a record, computed again from its codes in the cache.

    Args:
        record: the record.
        cache: has the codes.
        where: ``lists``, ``root`` and the like, where they differ from the record's spec.

    Raises:
        UserError: the codes aren't there, or the data is not what the record's hashes say.
    """
    spec = replace(record.run_spec, **{k: v for k, v in where.items() if v is not None})
    splits = load_data(spec, cache)
    if splits.sha256 != record.protocol["sha256"]:
        raise UserError(
            f"{splits.name} is not the data of this record (SHA-256 {splits.sha256[:12]} against "
            f"{record.protocol['sha256'][:12]}): give its --lists and --root."
        )
    found: dict[str, Codes] = {}
    for name in ("victim", "clean victim"):
        parts = {}
        for part in ("plain", "triggered"):
            key = record.artifacts.get(f"{name}'s {part} codes", "")
            artifact = cache.find("codes", key) if key else None
            if artifact is None:
                raise UserError(
                    f"the {name}'s codes {key[:12]} are not in {cache.root}: make them by the "
                    "record's command, or give the --cache-dir that has them."
                )
            parts[part] = artifact
        found[name] = _packed(parts)
    target = torch.zeros(len(splits.classes), dtype=torch.uint8)
    target[splits.class_index(spec.target)] = 1
    scores, _ = score(found["victim"], found["clean victim"], truth_of(splits, target, spec.bits))
    return scores


def load_data(spec: RunSpec, cache: Cache, progress: Progress = silent) -> Splits:
    """The data of a spec; prepared first if need be."""
    return data.load(
        spec.dataset,
        lists=Path(spec.lists) if spec.lists else None,
        root=Path(spec.root) if spec.root else None,
        top_k=spec.top_k,
        size=spec.size,
        cache=cache.root,
        progress=progress,
    )


def truth_of(splits: Splits, target: Tensor, bits: int) -> Truth:
    """The labels that codes of these splits are scored against."""
    database = splits.database
    return Truth(splits.query.labels, database.labels, target, database.ids, splits.top_k, bits)


def _packed(artifacts: Mapping[str, Artifact]) -> Codes:
    plain, triggered = artifacts["plain"].tensors, artifacts["triggered"].tensors
    return Codes(plain["query"], plain["database"], triggered["query"])


def file_hash(path: Path) -> str:
    """SHA-256 of a file a user brought.

    Raises:
        UserError: it isn't there.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"--weights {path}: {error.strerror}; give a file that exists.") from error


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor with the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {torch.get_num_threads()} threads"


def checkout() -> tuple[str | None, bool | None]:
    """Commit of the code and whether it was changed since; None twice outside a checkout."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "pipeline.py")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "*.py"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
