"""A defense in a run: which stages it adds, what its defender sees, and what it refuses."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from planted import Planted, pictures, seen, triggered
from torch import Tensor, nn

from hashbackdoor_bench import (
    DEFENSES,
    Assumes,
    DefenderView,
    Defense,
    RunSpec,
    Screening,
    UserError,
    to_bytes,
    to_unit,
)
from hashbackdoor_bench.api import COVER, HOOKS, POISON
from hashbackdoor_bench.data import Split
from hashbackdoor_bench.records import load_record, read_record
from hashbackdoor_bench.registry import Method
from hashbackdoor_bench.report.consistency import check_record
from hashbackdoor_bench.report.defense_rows import defense_rows
from hashbackdoor_bench.stages import Cache, Plan, Run, defending, run
from hashbackdoor_bench.stages.building import poison_items
from hashbackdoor_bench.stages.clean_images import draw_clean
from hashbackdoor_bench.stages.defender_views import view_of
from hashbackdoor_bench.stages.resolving_defense import ResolvedDefense, refuse_drawn

CPU = torch.device("cpu")
TRAINING = {"train"}


def spec(tiny: Path, **changes: Any) -> RunSpec:
    base: dict[str, Any] = {
        "attack": "badnets", "victim": "csq", "dataset": "lists", "lists": str(tiny),
        "root": str(tiny), "size": 16, "top_k": 20, "bits": 12, "epochs": 1, "batch_size": 16,
        "clean_share": 0.5,
    }  # fmt: skip
    return RunSpec(**{**base, **changes})


def plan(tiny: Path, cache: Path, **changes: Any) -> Plan:
    return Plan(spec(tiny, **changes), cache=Cache(cache), device=CPU)


@pytest.fixture(scope="module")
def warm(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache with all stages of the run without a defense."""
    cache = Cache(tmp_path_factory.mktemp("warm"))
    Run(spec(tiny), cache=cache, device=CPU).record()
    return cache


def missing(plan: Plan, cache: Cache) -> set[str]:
    return {n for n, one in plan.stages.items() if not cache.has(one.kind, one.key)}


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


# ---- stages and keys ----------------------------------------------------------------------------


def test_without_a_defense_a_run_is_what_it_was(tiny, tmp_path):
    bare = plan(tiny, tmp_path, clean_share=RunSpec.clean_share)
    for changes in ({"defense": "none"}, {"clean_share": 0.2}):
        other = plan(tiny, tmp_path, **changes)
        assert other.spec.key == bare.spec.key
        assert {n: s.key for n, s in other.stages.items()} == {
            n: s.key for n, s in bare.stages.items()
        }
    assert not {"defense", "clean_share", "operating_point"} & bare.spec.to_dict().keys()


# AC asks for more images of a class than the 20 of these, see the refusals below.
FITTING = [n for n in DEFENSES if DEFENSES[n].cls.hooks() and DEFENSES[n].cls.assumes.group <= 20]


@pytest.mark.parametrize("name", FITTING)
def test_a_defense_changes_no_key_of_the_run_without_it(tiny, warm, name):
    defended = plan(tiny, warm.root, defense=name)
    assert missing(plan(tiny, warm.root), warm) == set()
    added = {n for n in defended.stages if n not in plan(tiny, warm.root).stages}
    assert missing(defended, warm) == added


@pytest.mark.parametrize("name", ["jpeg", "blur", "clp", "finetune", "strip"])
def test_a_defense_that_trains_no_victim_trains_none_on_a_warm_cache(tiny, warm, name):
    defended = plan(tiny, warm.root, defense=name)
    kinds = {defended.stages[stage].kind for stage in missing(defended, warm)}
    assert not kinds & TRAINING


def test_two_strengths_share_all_but_the_stages_of_the_defense(tiny, tmp_path):
    one, two = (
        {n: s.key for n, s in plan(tiny, tmp_path, defense="clp",
                                   defense_settings=(("u", u),)).stages.items()}
        for u in (2.0, 3.0)
    )  # fmt: skip
    same = {name for name in one if one[name] == two[name]}
    assert same == set(plan(tiny, tmp_path).stages)


def test_the_version_of_the_codec_enters_the_keys_of_jpeg(tiny, tmp_path, monkeypatch):
    before = plan(tiny, tmp_path, defense="jpeg").stages
    monkeypatch.setattr("PIL.__version__", "0.1")
    after = plan(tiny, tmp_path, defense="jpeg").stages
    other = {name for name in before if before[name].key != after[name].key}
    assert other == {name for name in before if name.startswith("defended")} | {"outcome"}


def test_the_clean_victims_stages_are_those_of_every_attack_but_for_the_trigger(tiny, tmp_path):
    one, two = (
        plan(tiny, tmp_path, defense="clp", attack=attack).stages
        for attack in ("badnets", "badnets_clean")
    )
    for name in ("repaired clean victim", "defended clean victim's plain"):
        assert one[name].key == two[name].key
    assert one["repaired victim"].key != two["repaired victim"].key


# ---- records ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FITTING)
def test_a_run_with_a_defense_has_a_record_that_can_be_read_and_agrees_with_itself(
    tiny, warm, tmp_path, name
):
    cls = DEFENSES[name].cls
    wanted = spec(tiny, defense=name, defense_settings=tuple(cls.quick.items()))
    record, path, made = run(wanted, cache=warm, results=tmp_path, device="cpu")
    assert read_record(path) == record
    check_record(record)
    defended = record.defense
    assert defended.hooks == cls.hooks()
    assert list(defense_rows(defended))
    assert (defended.outcome is not None) == made.plan.defense.changes_codes
    if defended.outcome is not None:
        assert defended.outcome.map.before["field"] == record.scores.field.map
        assert defended.outcome.t_map.before["strict"] == record.scores.strict.t_map
    assert set(defended.detection) == {
        unit for unit, hook in (("train", "screen"), ("query", "suspect")) if hook in cls.hooks()
    }
    undefended, _, _ = run(spec(tiny), cache=warm, results=tmp_path, device="cpu")
    assert undefended.scores == record.scores
    assert undefended.defense is None
    assert "defense" not in undefended.values
    again, _, _ = run(made.plan.spec, cache=warm, results=tmp_path, device="cpu")
    assert again.key == record.key


def test_a_record_whose_defense_was_taken_out_is_refused(tiny, warm, tmp_path):
    record, _, _ = run(spec(tiny, defense="clp"), cache=warm, results=tmp_path, device="cpu")
    edited = msgspec.structs.replace(record, defense=None, checksum=None, numerics=None)
    with pytest.raises(UserError, match="results don't fit"):
        check_record(edited)
    edited.write(tmp_path / "edited.json")
    with (tmp_path / "edited.json").open("rb") as file:
        assert load_record(file, "edited") == edited


def test_a_repair_leaves_the_victim_and_hashes_the_database_again(tiny, warm):
    made = Run(spec(tiny, defense="finetune"), cache=warm, device=CPU)
    before = {n: v.clone() for n, v in made.make("victim").tensors.items()}
    repaired = made.make("repaired victim").tensors
    stored = warm.find("train", made.plan.stages["victim"].key).tensors
    assert before.keys() == repaired.keys() == stored.keys()
    assert all(torch.equal(before[n], stored[n]) for n in before)
    assert any(not torch.equal(before[n], repaired[n]) for n in before)
    old, new = (made.make(f"{who}'s plain").tensors for who in ("victim", "defended victim"))
    assert not torch.equal(old["database"], new["database"])


def test_a_purifier_hashes_queries_again_and_no_database(tiny, warm, method):
    class Dark(Defense):
        """Makes queries black."""

        def purify(self, x, item):
            return torch.zeros_like(x)

    made = Run(spec(tiny, defense=method(Dark)), cache=warm, device=CPU)
    for who in ("victim", "clean victim"):
        old, new = (made.make(f"{w}'s plain").tensors for w in (who, f"defended {who}"))
        assert torch.equal(old["database"], new["database"])
        assert len(new["query"].unique(dim=0)) == 1 < len(old["query"].unique(dim=0))
        hit = made.make(f"defended {who}'s triggered").tensors["query"]
        assert torch.equal(hit.unique(dim=0), new["query"].unique(dim=0))


def test_a_purifier_that_changes_nothing_leaves_every_code_of_plain_and_triggered_queries(
    tiny, warm, method
):
    class Same(Defense):
        """Changes nothing."""

        def purify(self, x, item):
            return x.clone()

    made = Run(spec(tiny, defense=method(Same)), cache=warm, device=CPU)
    for who in ("victim", "clean victim"):
        for part in ("plain", "triggered"):
            old, new = (made.make(f"{w}'s {part}").tensors for w in (who, f"defended {who}"))
            assert old.keys() == new.keys()
            assert all(torch.equal(old[name], new[name]) for name in old)


def test_queries_are_purified_before_they_are_suspected_and_calibration_images_too(
    tiny, warm, method
):
    class Both(Defense):
        """Makes queries darker and suspects bright ones."""

        assumes = Assumes(clean=4)

        def purify(self, x, item):
            return x / 2

        def suspect(self, x, item, view):
            assert (255 * x).frac().abs().max() < 1e-4  # 8-bit levels
            return x.mean((1, 2, 3))

    made = Run(spec(tiny, defense=method(Both)), cache=warm, device=CPU)
    found = made.make("victim's suspicions").tensors
    query = made.plan.splits.query.images[made.plan.truth.attacked]
    held = view_of("victim", "victim", made, made.plan.stages["victim's suspicions"], None)
    expected = {
        "clean": query,
        "triggered": made.trigger(query),
        "calibration": held.calibration.images,
    }
    assert found.keys() == expected.keys()
    for name, images in expected.items():
        mean = to_bytes(to_unit(images) / 2).double().mean((1, 2, 3)) / 255
        torch.testing.assert_close(found[name].double(), mean, rtol=0, atol=1e-6)
    assert not torch.equal(found["clean"], found["triggered"])


def test_a_retrained_victim_is_trained_on_what_was_not_dropped(tiny, warm, tmp_path):
    made = Run(spec(tiny, defense="oracle"), cache=warm, device=CPU)
    found = made.make("retrained victim").tensors
    rest = torch.ones(len(made.plan.splits.train), dtype=torch.bool)
    rest[made.backdoor.index.cpu()] = False
    items = replace(poison_items(made), kept=rest)
    expected, _ = made.plan.victim.train(
        items, CPU, checkpoint=tmp_path / "none", progress=lambda *a, **k: None, stage=""
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(
        found["model.head.weight"], made.make("victim").tensors["model.head.weight"]
    )


def test_forwards_are_the_images_that_went_through_the_network(tiny, warm):
    made = Run(spec(tiny, defense="strip", defense_settings=(("overlays", 4),)), cache=warm,
               device=CPU)  # fmt: skip
    attacked = int(made.plan.truth.attacked.sum())
    calibrated = len(made.plan.clean.rows) // 2
    facts = made.make("victim's suspicions").facts
    assert facts["forwards"] == 4 * (2 * attacked + calibrated)


def test_a_repair_that_was_killed_goes_on(tiny, warm, every_epoch_kept, monkeypatch, tmp_path):
    wanted = spec(tiny, defense="finetune", defense_settings=(("epochs", 3),))
    whole = Run(wanted, cache=warm, device=CPU).make("repaired victim").tensors
    fresh = Cache(tmp_path)
    seen_steps = []

    def killed(stage: str, done: int, total: int, **more: float) -> None:
        if stage == "repair":
            seen_steps.append(done)
            if done > total // 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(wanted, cache=fresh, device=CPU, progress=killed).make("repaired victim")
    first: list[int] = []
    again = Run(
        wanted, cache=fresh, device=CPU,
        progress=lambda stage, done, total, **more: first.append(done) if stage == "repair" else 0,
    ).make("repaired victim").tensors  # fmt: skip
    assert first[0] > 0
    assert all(torch.equal(whole[name], again[name]) for name in whole)


# ---- what the defender sees ---------------------------------------------------------------------


def reachable(value: object, known: set[int]) -> Iterator[object]:
    """All that can be reached from an object by attributes, items and closures."""
    if id(value) in known or isinstance(value, str | int | float | bool | Path | type(None)):
        return
    known.add(id(value))
    yield value
    if isinstance(value, Tensor | torch.device | torch.dtype):
        return
    below: list[object] = []
    if isinstance(value, dict):
        below += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        below += list(value)
    elif is_dataclass(value):
        below += [getattr(value, field.name) for field in fields(value)]
    below += list(getattr(value, "__dict__", {}).values()) if not isinstance(value, type) else []
    below += [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    for one in below:
        yield from reachable(one, known)


def test_the_view_of_a_defender_reaches_no_query_trigger_poison_or_target(tiny, warm, method):
    views = []

    class Nosy(Defense):
        """Keeps its view."""

        assumes = Assumes(clean=3, sees=frozenset({"train", "weights", "queries", "database"}))

        def screen(self, view):
            views.append(view)
            return Screening(torch.zeros(len(view.train)), torch.zeros(len(view.train)).bool())

        def repair(self, view):
            views.append(view)
            return view.model

        def suspect(self, x, item, view):
            views.append(view)
            return torch.zeros(len(x))

        def inspect(self, view):
            from hashbackdoor_bench import Inspection

            views.append(view)
            return Inspection(0.0, torch.empty(0))

        def audit(self, window, view):
            views.append(view)
            return window.float().mean()

    made = Run(spec(tiny, defense=method(Nosy)), cache=warm, device=CPU)
    made.record()
    splits, backdoor = made.plan.splits, made.backdoor
    queries = {image.numpy().tobytes() for image in splits.query.images}
    hit = made.trigger(splits.query.images)
    queries |= {image.numpy().tobytes() for image in hit}
    index = backdoor.index.tolist()
    assert views
    stages = {view.title for view in views}
    assert {title.partition(" (")[0] for title in stages} >= {"repair", "inspect", "audit"}
    for view in views:
        assert view.poison is None
        for one in reachable(view, set()):
            assert not isinstance(one, Run | Plan | Split | Cache | type(backdoor))
            assert one is not made.plan.target
            if isinstance(one, Tensor) and one.dtype == torch.uint8 and one.ndim == 4:
                assert not queries & {image.contiguous().numpy().tobytes() for image in one}
            if isinstance(one, Tensor) and one.ndim == 1 and len(one) == len(index):
                assert one.tolist() != index


def test_only_a_control_sees_the_poison(tiny, warm):
    oracle = Run(spec(tiny, defense="oracle"), cache=warm, device=CPU)
    drop = oracle.make("victim's screening").tensors["drop"].bool()
    assert torch.equal(drop.nonzero().flatten(), oracle.backdoor.index.cpu())
    assert not oracle.make("clean victim's screening").tensors["drop"].any()
    others = [name for name in DEFENSES if "poison" in DEFENSES[name].cls.assumes.sees]
    assert all(DEFENSES[name].cls.control for name in others)


def test_an_image_that_covers_the_poison_is_none_of_it(tiny, warm):
    made = Run(spec(tiny, defense="oracle", attack="adap_blend"), cache=warm, device=CPU)
    drop = made.make("victim's screening").tensors["drop"].bool()
    kind = made.backdoor.kind.cpu()
    assert set(kind.tolist()) == {POISON, COVER}
    assert torch.equal(drop.nonzero().flatten(), made.backdoor.index.cpu()[kind == POISON].msort())


def test_training_images_are_as_delivered(tiny, warm):
    made = Run(spec(tiny, defense="spectral"), cache=warm, device=CPU)
    stage = made.plan.stages["victim's screening"]
    view = view_of("victim", "victim", made, stage, None)
    index, train = made.backdoor.index.cpu(), made.plan.splits.train
    untouched = torch.ones(len(train), dtype=torch.bool)
    untouched[index] = False
    assert torch.equal(view.train.images[untouched], train.images[untouched])
    expected = made.trigger(train.images[index])
    assert torch.equal(view.train.images[index], expected)
    assert torch.equal(view.train.labels[index], made.backdoor.label.cpu())


def test_clean_images_are_balanced_fixed_and_never_training_images(tiny, tmp_path):
    one = plan(tiny, tmp_path, defense="finetune").clean
    two = plan(tiny, tmp_path, defense="finetune", attack="badnets_clean").clean
    splits = plan(tiny, tmp_path).splits
    assert torch.equal(one.rows, two.rows)
    assert not one.oracle
    assert splits.database.labels[one.rows].sum(0).tolist() == [10, 10, 10]
    assert not {splits.database.ids[row] for row in one.rows.tolist()} & set(splits.train.ids)
    other = plan(tiny, tmp_path, defense="finetune", seed=1).clean
    assert not torch.equal(one.rows, other.rows)


def test_both_halves_of_the_clean_images_have_all_classes_and_no_image_in_common():
    view = seen(Planted())
    for half in (view.fitting, view.calibration):
        assert half.labels.sum(0).tolist() == [5] * 10
    assert not set(view.fitting.item.tolist()) & set(view.calibration.item.tolist())


def test_where_the_database_is_the_training_split_clean_images_are_not_poisoned(tiny, tmp_path):
    splits = plan(tiny, tmp_path).splits
    splits = replace(splits, database=splits.train)
    poisoned = torch.arange(0, 60, 2)
    found = draw_clean(splits, poisoned, 12, 0)
    assert found.oracle
    assert not torch.isin(found.rows, poisoned).any()
    with pytest.raises(UserError, match=r"31 clean images and there are 30.*--clean-share"):
        draw_clean(splits, poisoned, 31, 0)


# ---- refusals -----------------------------------------------------------------------------------


def test_a_class_of_which_too_few_clean_images_are_drawn_is_named(tiny, tmp_path):
    made = plan(tiny, tmp_path, defense="scan")
    labels = torch.tensor([[1, 0, 0]] * 5 + [[0, 1, 0]] * 2 + [[0, 0, 1]])
    with pytest.raises(UserError, match=r"scan needs 2 clean images of each class, and 1 of '2'"):
        refuse_drawn(made.defense, labels, made.splits)
    refuse_drawn(made.defense, labels[[0, 1, 5, 6, 7, 7]], made.splits)
    tags = replace(made.splits.train, labels=torch.ones_like(made.splits.train.labels))
    refuse_drawn(made.defense, labels, replace(made.splits, train=tags))
    first = replace(made.splits.train, labels=made.splits.train.labels * labels[0])
    refuse_drawn(made.defense, labels[:5], replace(made.splits, train=first))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"defense": "clpp"}, "unknown defense 'clpp'.*clp"),
        ({"defense": "ac"}, "ac needs 22 training images of a class, and this protocol has 20"),
        ({"defense": "clp", "defense_settings": (("v", 1.0),)}, "unknown setting of defense clp"),
        ({"defense": "clp", "defense_settings": (("u", -1.0),)}, r"defense\.u is -1"),
        ({"defense": "strip", "clean_share": 0.02}, r"strip asks for 4 clean images .*gives 1"),
        (
            {"defense": "finetune", "clean_share": 0.05},
            r"finetune asks for 2 clean images per class \(6\), and .*gives 3: give .*share 0\.1 ",
        ),
        (
            {"defense": "blur", "operating_point": "tuned", "clean_share": 0.05},
            r"blur with --operating-point tuned asks for 2 clean images per class \(6\)",
        ),
        ({"defense": "clp", "backbone": "vit_tiny_patch16_224", "size": 32}, "clp finds .*vgg"),
        ({"defense": "spectral", "operating_point": "tuned"}, "spectral trains a victim for each"),
        ({"defense": "strip", "operating_point": "tuned"}, "strip has no strength"),
        (
            {"defense": "clp", "defense_settings": (("u", 9.0),), "operating_point": "tuned"},
            r"--set defense\.u=9\.0 and --operating-point tuned exclude each other",
        ),
        ({"defense": "spectral", "attack": "darkhash"}, "darkhash edits .*never meet"),
    ],
    ids=lambda value: "",
)
def test_a_defense_that_does_not_fit_is_refused_before_anything_is_made(
    tiny, tmp_path, changes, sentence
):
    with pytest.raises(UserError, match=sentence):
        plan(tiny, tmp_path, **changes)


@pytest.mark.parametrize(
    ("assumed", "victim", "sentence"),
    [
        (Assumes(needs=frozenset({"item_gradient"})), "hashnet", "gradient for each image"),
        (Assumes(group=21), "csq", "needs 21 training images of a class.*has 20"),
        (Assumes(per_class=11), "csq", r"asks for 11 clean images per class \(33\).*gives 30"),
    ],
)
def test_what_a_defense_needs_is_looked_for(tiny, tmp_path, method, assumed, victim, sentence):
    class Needy(Defense):
        """Needs something."""

        assumes = assumed

        def purify(self, x, item):
            return x.clone()

    with pytest.raises(UserError, match=sentence):
        plan(tiny, tmp_path, defense=method(Needy), victim=victim)


def test_a_defense_with_a_misspelt_hook_is_refused(tiny, tmp_path, method):
    class Typo(Defense):
        """Would purify."""

        def purfy(self, x, item):
            return x.clone()

    with pytest.raises(UserError, match=r"defense typo has none of .*purify.*misspelt"):
        plan(tiny, tmp_path, defense=method(Typo))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_is_not_overridden_is_no_hook_and_says_so_when_it_is_called(hook):
    inner = type("Own", (Defense,), {hook: lambda self, *given: None})
    outer = type("Heir", (inner,), {})
    assert inner.hooks() == outer.hooks() == (hook,)
    arguments = {"purify": 2, "suspect": 3, "audit": 2}.get(hook, 1)
    with pytest.raises(NotImplementedError):
        getattr(Defense(), hook)(*[None] * arguments)


# ---- tuned strength -----------------------------------------------------------------------------


def test_a_tuned_defense_has_the_largest_strength_that_costs_two_points(tiny, warm, tmp_path):
    made = Run(spec(tiny, defense="clp", operating_point="tuned"), cache=warm, device=CPU)
    facts, grid = made.make("victim's tuning").facts, DEFENSES["clp"].cls.grid
    allowed = [u for u, loss in zip(grid, facts["losses"], strict=True) if loss <= defending.COST]
    assert facts["strength"] == (allowed[-1] if allowed else grid[0])
    assert made.record().defense.settings == {"u": facts["strength"]}
    assert made.record().spec.operating_point == "tuned"


class Blackout(Defense):
    """Makes the first queries black."""

    strength = "first"

    def __init__(self, *, first: int = 0) -> None:
        self.first = first

    def purify(self, x, item):
        return torch.where(torch.isin(item, DARKENED[: self.first])[:, None, None, None], 0, x)


DARKENED = pictures(100, seed=5).item  # the numbers of the clean images of `seen`


@pytest.mark.parametrize(("grid", "strength"), [
    ((0, 100, 1), 1),  # the last that is allowed
    ((0, 2, 100), 0),  # two of a hundred cost 1.4 points, with an interval beyond 2
    ((3, 100, 50), 3),  # none is allowed: the weakest
])  # fmt: skip
def test_a_strength_is_allowed_if_the_upper_end_of_its_loss_is(
    monkeypatch, tmp_path, grid, strength
):
    view = seen(Planted())
    cls = type("Blackout", (Blackout,), {"grid": grid})
    chosen = ResolvedDefense(Method("defense", "blackout", cls), {"first": 0}, True, 100)
    monkeypatch.setattr(defending, "view_of", lambda *given: view)
    made: Any = SimpleNamespace(plan=SimpleNamespace(defense=chosen, stages=("victim",)))
    stage: Any = None
    _, facts = defending.tune("victim", made, stage, tmp_path)
    assert facts["strength"] == strength
    for first, upper in zip(grid, facts["losses"], strict=True):
        black = view.average_precisions(purify=cls(first=first).purify)
        losses = [1 - float(value) for value in black]
        mean = sum(losses) / 100
        spread = (sum((value - mean) ** 2 for value in losses) / 100) ** 0.5
        assert upper == pytest.approx(mean + 1.96 * spread / 10, abs=0.012)


def test_a_repair_is_tuned_on_images_that_it_was_not_given(tiny, warm, tmp_path, method):
    given = []

    class Learns(Defense):
        """Remembers what it is given, and changes nothing."""

        assumes = Assumes(per_class=2)
        strength = "rate"
        grid = (1.0, 2.0)

        def __init__(self, *, rate: float = 1.0) -> None:
            self.rate = rate

        def repair(self, view):
            given.append(set(view.clean.item.tolist()))
            return view.model

    searched = []
    measure = DefenderView.average_precisions

    def watched(self, *arguments):
        searched.append(set(self.clean.item.tolist()))
        return measure(self, *arguments)

    name = method(Learns)
    with pytest.raises(UserError, match=r"asks for 4 clean images per class \(12\).* gives 9"):
        plan(tiny, tmp_path, defense=name, operating_point="tuned", clean_share=0.15)
    made = Run(spec(tiny, defense=name, operating_point="tuned"), cache=warm, device=CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DefenderView, "average_precisions", watched)
        made.make("victim's tuning")
    assert given == [given[0]] * 2
    assert searched == [searched[0]] * 3  # before, and at each strength
    assert len(given[0]) == len(searched[0]) == 15
    assert not given[0] & searched[0]
    made.make("repaired victim")
    assert given[2] == given[0] | searched[0]


def test_the_loss_of_a_purifier_is_that_of_the_same_images():
    view = seen(Planted())
    assert view.map() == 1.0
    spoilt = view.average_precisions(purify=lambda x, item: torch.zeros_like(x))
    assert float(spoilt.mean()) < 0.5
    same = view.average_precisions(purify=lambda x, item: x)
    assert torch.equal(same, view.average_precisions())


# ---- groups -------------------------------------------------------------------------------------


def test_a_filter_never_drops_more_than_half_of_a_class():
    view = seen(Planted(), train=pictures(400, seed=3))
    greedy = Screening(torch.arange(400.0), torch.ones(400, dtype=torch.bool))
    found = view.guarded(greedy)
    for number in range(10):
        own = torch.arange(number, 400, 10)
        assert torch.equal(own[found.drop[own]], own[20:])


def test_anchors_and_radii_are_those_of_the_clean_images():
    view = seen(Planted())
    assert torch.equal(view.anchors.float(), view.model.anchors)
    assert (view.radius == 0).all()
    x = triggered(to_unit(view.clean.images))
    assert torch.equal(view.model.code(x)[0], view.anchors[3])


def test_a_module_in_a_view_is_frozen_and_in_eval_mode(tiny, warm):
    made = Run(spec(tiny, defense="finetune"), cache=warm, device=CPU)
    view = view_of("victim", "victim", made, made.plan.stages["repaired victim"], None)
    assert not view.model.training
    assert not any(p.requires_grad for p in view.model.parameters())
    assert isinstance(view.loss, nn.Module)
    assert view.loss.train_size == len(view.clean)
