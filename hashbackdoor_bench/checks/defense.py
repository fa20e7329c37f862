"""The contract of defenses, checked on random images of 32 px and an untrained network."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hashbackdoor_bench.api import Defense
from hashbackdoor_bench.checks.attack_trial import CLASSES
from hashbackdoor_bench.checks.defense_trial import TRAINED, DefenseTrial
from hashbackdoor_bench.checks.finding import (
    Finding,
    Rule,
    advanced,
    apply,
    bad_settings,
    global_states,
    seeded,
    settings,
)
from hashbackdoor_bench.defender import DefenderView
from hashbackdoor_bench.network import HashModel
from hashbackdoor_bench.registry import Method

SEES = {"train", "weights", "queries", "database"}
NEEDS = {"items", "item_gradient", "maps", "channels"}
NUMBERS = "draw from view.generator('…'), step.generator or the image's number alone."


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
        found = trial.defense().screen(trial.view())
    if found.suspicion.shape != (TRAINED,) or not found.suspicion.is_floating_point():
        yield f"suspicion is {_form(found.suspicion)}: it must be ({TRAINED},) of floats."
        return
    if found.drop.shape != (TRAINED,) or found.drop.dtype != torch.bool:
        yield f"drop is {_form(found.drop)}: it must be ({TRAINED},) torch.bool."
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
        before = step.x.clone()
        with seeded(seed):
            loss = trial.defense().backward(step)
        if loss.shape != () or not torch.isfinite(loss):
            yield f"backward returns {_form(loss)}: it must be a finite scalar, the loss."
            return
        if not torch.equal(before, step.x):
            yield "backward changes step.x in place: work on a clone()."
        calls = getattr(step.loss, "remembered", 1)
        if calls != 1:
            yield f"backward calls step.remember {calls} times: it must be once, before the loss."
        grads = [p.grad for p in step.model.parameters() if p.grad is not None]
        if not grads or not all(torch.isfinite(g).all() for g in grads):
            yield "backward leaves no gradients, or gradients that are NaN or infinite."
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
        if model.training or any(p.requires_grad for p in model.parameters()):
            yield "repair returns a model in training mode or with gradients: end with .eval()."
    forms = [{name: value.shape for name, value in state.items()} for state in (*made, before)]
    if any(form != forms[-1] for form in forms):
        yield "repair returns a network of another architecture: keep all tensors."
    elif not all(torch.isfinite(v).all() for v in made[0].values() if v.is_floating_point()):
        yield "repair returns weights that are NaN or infinite."
    elif _differ(*made):
        yield f"repair gives other weights each time: {NUMBERS}"


def purifies(trial: DefenseTrial) -> Iterator[str]:
    """A purifier makes new images in [0,1], each from itself and its number alone."""
    if not trial.has("purify"):
        return
    (x, item), defense = trial.queries(), trial.defense()
    given = x.clone()
    with seeded(1):
        out = defense.purify(given, item)
    if (out.shape, out.dtype) != (x.shape, x.dtype):
        yield f"purify gives {_form(out)}: it must be {_form(x)}, as it was."
        return
    if not torch.equal(given, x):
        yield "purify changes x in place: work on x.clone()."
    if out.data_ptr() == given.data_ptr():
        yield "purify returns x itself: return x.clone()."
    if not ((out >= 0) & (out <= 1)).all():  # not true of NaN either
        yield "purify leaves [0,1]: end it with .clamp(0, 1)."
    yield from _alone("purify", out, lambda rows: defense.purify(x[rows], item[rows]))
    if len(defense.purify(x[:0], item[:0])):
        yield "purify of no images gives some: return x.clone() for an empty batch."


def suspects(trial: DefenseTrial) -> Iterator[str]:
    """The suspicion of a query is finite, and depends on that query alone."""
    if not trial.has("suspect"):
        return
    (x, item), defense, view = trial.queries(), trial.defense(), trial.view()
    with torch.no_grad():
        with seeded(1):
            found = defense.suspect(x.clone(), item, view)
        if found.shape != (len(x),) or not torch.isfinite(found).all():
            yield f"suspect gives {_form(found)}: it must be ({len(x)},), all finite."
            return
        yield from _alone("suspect", found, lambda rows: defense.suspect(x[rows], item[rows], view))


def inspects(trial: DefenseTrial) -> Iterator[str]:
    """An inspection gives a finite score, and one for each class or for none."""
    if not trial.has("inspect"):
        return
    found = []
    for seed in (1, 2):
        with seeded(seed):
            found.append(trial.defense().inspect(trial.view()))
    first = found[0]
    if first.per_class.shape not in ((0,), (CLASSES,)):
        yield f"per_class is {_form(first.per_class)}: it must be ({CLASSES},) or (0,)."
    if not torch.isfinite(torch.tensor(first.score)):
        yield f"the score is {first.score}: it must be finite."
    if found[1].score != first.score:
        yield f"two inspections of the same model differ: {NUMBERS}"


def audits(trial: DefenseTrial) -> Iterator[str]:
    """An audit gives one finite number, the same for the same window in another order."""
    if not trial.has("audit"):
        return
    window, view = trial.window(), trial.view()
    found = trial.defense().audit(window, view)
    if found.numel() != 1 or not torch.isfinite(found).all():
        yield f"audit gives {_form(found)}: it must be one finite number."
        return
    if not torch.allclose(trial.defense().audit(window.flip(0), view), found, atol=1e-4):
        yield "audit depends on the order of the queries in a window: it must not."


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


def _alone(name: str, found: Tensor, call: Callable[[Tensor], Tensor]) -> Iterator[str]:
    """Problems of a result that must be the same for each item by itself and in another order."""
    back = torch.arange(len(found)).flip(0)
    if not torch.allclose(call(back).flip(0), found, atol=1e-3):
        yield f"{name} depends on the order of the batch: use each image and its number alone."
    elif not torch.allclose(call(back[-1:]), found[:1], atol=1e-3):
        yield f"{name} depends on the other images of the batch: use each image alone."


def _differ(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return any(not torch.equal(value, two[name]) for name, value in one.items())


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"


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
