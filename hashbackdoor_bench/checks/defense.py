"""The contract of defenses, checked on random images of 32 px and an untrained network."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hashbackdoor_bench.api import Defense, Inspection, Screening
from hashbackdoor_bench.checks.attack_trial import CLASSES, untrained
from hashbackdoor_bench.checks.defense_queries import NUMBERS, audits, form_of, purifies, suspects
from hashbackdoor_bench.checks.defense_trial import TRAINED, DefenseTrial
from hashbackdoor_bench.checks.finding import (
    Finding,
    Rule,
    advanced,
    apply,
    bad_settings,
    changed_by_loading,
    changes_of_loss,
    global_states,
    returned,
    seeded,
    settings,
)
from hashbackdoor_bench.defender import DefenderView
from hashbackdoor_bench.network import HashModel
from hashbackdoor_bench.registry import Method

SEES = {"train", "weights", "queries", "database"}
NEEDS = {"items", "item_gradient", "maps", "channels"}


def check_defense(method: Method[Defense]) -> list[Finding]:
    """The promises that a defense breaks; empty if it keeps all of them.

    Its hooks run a few times with its ``quick`` settings, on a tiny task, on the CPU; no victim is
    trained and nothing is written.

    Args:
        method: ``DEFENSES[name]``.
    """
    return apply(DEFENSE_RULES, DefenseTrial(method), method)


def declares(trial: DefenseTrial) -> Iterator[str]:
    """The class says what it is."""
    cls = trial.method.cls
    if error := bad_settings(trial.method):
        yield f"its quick settings are wrong: {error}"
        return
    problems = list(settings(trial.method, 0))
    yield from problems
    if problems:
        return
    if not (cls.__doc__ or "").strip():
        yield "the class has no docstring: say what it does and, under Args:, each setting."
    if not cls.hooks() and not cls.control:
        yield "it has no hook: override one or more methods of Defense."
    allowed = SEES | ({"poison"} if cls.control else set())
    for name, words, known in (
        ("sees", cls.assumes.sees, allowed),
        ("needs", cls.assumes.needs, NEEDS),
    ):
        for word in sorted(words - known):
            yield f"assumes.{name} holds {word!r}: write words of {', '.join(sorted(known))}."
    if "screen" in cls.hooks() and not {"train", "poison"} & cls.assumes.sees:
        yield 'screen looks at training images: write assumes = Assumes(sees=frozenset({"train"})).'
    if (cls.strength is None) != (not cls.grid):
        yield "strength and grid belong together: give both, or none of them."
    if cls.strength is not None:
        if cls.strength not in trial.method.parameters:
            yield f"strength is {cls.strength!r}, which is no hyper-parameter."
            return
        for value in cls.grid:
            trial.method.cls(**trial.method.resolve({cls.strength: value}))


def screens(trial: DefenseTrial) -> Iterator[str]:
    """A screening has a finite suspicion for each image, and the same one for the same seed."""
    if not trial.has("screen"):
        return
    with seeded(1):
        found = returned(trial.defense().screen(trial.view()), Screening, "screen")
    if found.suspicion.shape != (TRAINED,) or not found.suspicion.is_floating_point():
        yield f"suspicion is {form_of(found.suspicion)}: it must be ({TRAINED},) of floats."
        return
    if found.drop.shape != (TRAINED,) or found.drop.dtype != torch.bool:
        yield f"drop is {form_of(found.drop)}: it must be ({TRAINED},) torch.bool."
        return
    if not torch.isfinite(found.suspicion).all():
        yield "a suspicion is NaN or infinite: keep them finite."
    if found.drop.all():
        yield "it drops all images: keep some of each class."
    with seeded(2):
        again = trial.defense().screen(trial.view())
    if not (torch.equal(again.suspicion, found.suspicion) and torch.equal(again.drop, found.drop)):
        yield f"two screenings of the same images differ: {NUMBERS}"


def trains(trial: DefenseTrial) -> Iterator[str]:
    """A training step has finite gradients and a scalar loss, and remembers its batch once."""
    if not trial.has("backward"):
        return
    gradients = []
    for seed in (1, 2):
        step = trial.step()
        before = {name: getattr(step, name).clone() for name in ("x", "y", "index")}
        weights = {name: value.clone() for name, value in step.model.named_parameters()}
        with seeded(seed):
            states = global_states()
            loss = returned(trial.defense().backward(step), Tensor, "backward")
            drawn = advanced(states)
        if loss.shape != () or not torch.isfinite(loss):
            yield f"backward returns {form_of(loss)}: it must be a finite scalar, the loss."
            return
        for name, value in before.items():
            if not torch.equal(value, getattr(step, name)):
                yield f"backward changes step.{name} in place: work on a clone()."
        if _differ(dict(step.model.named_parameters()), weights):
            yield "backward changes the weights: leave that to the optimiser, and make gradients."
        for library in drawn:
            yield f"backward draws from {library}'s global random numbers: {NUMBERS}"
        calls = getattr(step.loss, "remembered", 1)
        if calls != 1:
            yield f"backward calls step.remember {calls} times: it must be once, before the loss."
        grads = [p.grad for p in step.model.parameters() if p.grad is not None]
        if not grads or not all(torch.isfinite(g).all() for g in grads):
            yield "backward leaves no gradients, or gradients that are NaN or infinite."
            return
        if not any(g.any() for g in grads):
            yield "backward leaves gradients that are all 0, so nothing is trained."
            return
        gradients.append(torch.cat([g.flatten() for g in grads]))
    if not torch.equal(*gradients):
        yield f"backward gives other gradients each time: {NUMBERS}"


def repairs(trial: DefenseTrial) -> Iterator[str]:
    """A repair makes a network of the same form, the same for the same seed, and keeps the old."""
    if not trial.has("repair"):
        return
    made = []
    for seed in (1, 2):
        view = trial.view()
        before = {name: value.clone() for name, value in view.model.state_dict().items()}
        with seeded(seed):
            model = trial.defense().repair(view)
        if not isinstance(model, HashModel):
            yield f"repair returns a {type(model).__name__}: it must be a HashModel."
            return
        if _differ(view.model.state_dict(), before):
            yield "repair changes view.model: work on a copy.deepcopy() of it, or with view.fit."
        made.append(model.state_dict())
        types = {name: value.dtype for name, value in before.items()}
        wrong = [value.dtype for name, value in made[0].items() if value.dtype != types.get(name)]
        if wrong and made[0].keys() == before.keys():
            yield f"repair returns weights of {wrong[0]}: keep the types of view.model."
            return
        if model.training or any(p.requires_grad for p in model.parameters()):
            yield "repair returns a model in training mode or with gradients: end with .eval()."
    forms = [{name: value.shape for name, value in state.items()} for state in (*made, before)]
    if any(form != forms[-1] for form in forms):
        yield "repair returns a network of another architecture: keep all tensors."
    elif not all(torch.isfinite(v).all() for v in made[0].values() if v.is_floating_point()):
        yield "repair returns weights that are NaN or infinite."
    elif changed_by_loading(model, untrained(), trial.queries()[0]):
        yield (
            "the model that repair returns makes other codes than its weights, which alone are "
            "kept: change weights, and leave no hook or other method on it."
        )
    elif _differ(*made):
        yield f"repair gives other weights each time: {NUMBERS}"


def inspects(trial: DefenseTrial) -> Iterator[str]:
    """An inspection gives a finite score, and one for each class or for none."""
    if not trial.has("inspect"):
        return
    found = []
    for seed in (1, 2):
        with seeded(seed):
            found.append(returned(trial.defense().inspect(trial.view()), Inspection, "inspect"))
    first = found[0]
    if first.per_class.shape not in ((0,), (CLASSES,)):
        yield f"per_class is {form_of(first.per_class)}: it must be ({CLASSES},) or (0,)."
    if not torch.isfinite(torch.tensor(first.score)):
        yield f"the score is {first.score}: it must be finite."
    elif not torch.isfinite(first.per_class).all():
        yield "per_class holds NaN or infinity: keep it finite."
    same = torch.equal(found[1].per_class, first.per_class) and found[1].score == first.score
    if not same and first.score == first.score:
        yield f"two inspections of the same model differ: {NUMBERS}"


def view_untouched(trial: DefenseTrial) -> Iterator[str]:
    """No hook changes what the view holds, or the state of global random numbers."""
    seen, fresh, before = trial.view(), trial.view(), global_states()
    defense, (x, item) = trial.defense(), trial.queries()
    for hook in ("screen", "repair", "inspect"):
        if trial.has(hook):
            getattr(defense, hook)(seen)
    with torch.no_grad():
        if trial.has("suspect"):
            defense.suspect(x, item, seen)
        if trial.has("purify"):
            defense.purify(x, item)
        if trial.has("audit"):
            defense.audit(trial.window(), seen)
    for library in advanced(before):
        yield f"it draws from {library}'s global random numbers: {NUMBERS}"
    for name in _tensors(fresh):
        if not torch.equal(_tensors(seen)[name], _tensors(fresh)[name]):
            yield f"it changes view.{name} in place: work on a clone()."
    yield from changes_of_loss("view.loss", seen.loss, fresh.loss)
    if not torch.equal(x, trial.queries()[0]):
        yield "it changes x in place: work on x.clone()."


def _tensors(view: DefenderView) -> dict[str, Tensor]:
    """The tensors of a view by name."""
    found = {name: value for name, value in vars(view).items() if isinstance(value, Tensor)}
    for name in ("clean", "train"):
        held = getattr(view, name)
        if held is not None:
            found |= {f"{name}.{part}": value for part, value in vars(held).items()}
    return found | {f"model.{name}": value for name, value in view.model.state_dict().items()}


def _differ(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return any(not torch.equal(value, two[name]) for name, value in one.items())


DEFENSE_RULES: tuple[Rule[DefenseTrial], ...] = (
    declares,
    screens,
    trains,
    repairs,
    purifies,
    suspects,
    inspects,
    audits,
    view_untouched,
)
