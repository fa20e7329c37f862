"""The pages of methods: one for each file of attacks/, victims/ and defenses/, and their overview.

A file may register several names, which are presets of one class; all stand on its page, each in
the overview.
"""

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import record_rows
from docstring_html import Explained, explained, facts_table, text_html

from hashbackdoor_bench.cli import argument_texts
from hashbackdoor_bench.registry import METHODS, Method
from hashbackdoor_bench.spec import RECIPES

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/pictures"
FROZEN = "--dataset fashion-mini@96 --backbone tf_efficientnet_lite0 --pretrained --recipe frozen"
DIFFERENCE = "the difference, four times as strong, on mid-grey"
HOOKS = {
    "screen": "It looks through the training images and leaves some out; the victim is trained "
    "again without them.",
    "backward": "It changes how the gradients of each training step are made.",
    "repair": "It changes the trained network.",
    "purify": "It changes each query before it is hashed.",
    "suspect": "It says of each query how suspicious it is.",
    "inspect": "It says of the trained network how likely it has a backdoor.",
    "audit": "It says of a window of queries how suspicious they are together.",
}
SEES = {
    "weights": "the network's weights",
    "train": "the training images as delivered, poison inside",
    "queries": "the queries",
    "database": "the codes of the database",
    "poison": "which training images are poisoned, as no real defender does",
}
RESULTS = {
    "attack": record_rows.of_attack,
    "victim": record_rows.of_victim,
    "defense": record_rows.of_defense,
}
NO_RESULTS = "No record of it is published yet. The command above makes one of your own."
WIDE = "---\nhide: [toc]\n---\n\n"
UNITS = (
    "Percent, mean ± standard deviation over runs (seeds and targets); "
    "[how to read them](../record.md)."
)


@dataclass(frozen=True)
class Card:
    """One file of methods.

    Attributes:
        kind: ``attack``, ``victim`` or ``defense``.
        names: its names on the command line, the file's own first.
    """

    kind: str
    names: tuple[str, ...]

    @property
    def uri(self) -> str:
        """The path of its page in the docs."""
        return f"{self.kind}s/{self.names[0]}.md"

    @property
    def method(self) -> Method[Any]:
        """What the file's own name stands for."""
        found: Method[Any] = METHODS[self.kind][self.names[0]]
        return found

    @property
    def title(self) -> str:
        """How papers write the method."""
        return str(METHODS[self.kind].published(self.names[0]))

    @cached_property
    def text(self) -> Explained:
        """The docstring of the file."""
        return explained(inspect.getdoc(inspect.getmodule(self.method.cls)) or "")

    def instance(self, name: str) -> Any:
        """One of its methods, with default settings."""
        method = METHODS[self.kind][name]
        return method(48, 10, 100) if self.kind == "victim" else method()

    def command(self, name: str) -> str:
        """A command that runs one of its methods."""
        word = name.replace("_", "-")
        if self.kind == "attack":
            return f"bench run --attack {word} --victim hashnet --bits 48"
        if self.kind == "defense":
            return f"bench run --attack ciba --victim hashnet --defense {word}"
        if self.instance(name).trained:
            return f"bench run --attack ciba --victim {word} --bits 48"
        return f"bench run --attack badnets --victim {word} {FROZEN}"

    def labels(self, name: str) -> list[str]:
        """A few words that tell it from others."""
        one = self.instance(name)
        if self.kind == "attack":
            if one.threat.control == "model":
                return ["edits the trained model", one.threat.trigger]
            kinds = [f"{one.threat.label} label"] if one.poisons else ["control"]
            if one.threat.knowledge == "surrogate":
                kinds.append("needs a surrogate")
            no_trigger = "no trigger" if one.threat.trigger == "none" else one.threat.trigger
            return [*kinds, no_trigger, *(["covers"] if getattr(one, "covers", 0) else [])]
        if self.kind == "defense":
            control = ["control"] if one.control else []
            return [*control, *one.hooks()]
        return ["trained"] if one.trained else ["nothing is trained"]

    def page(self) -> str:
        """The page as Markdown."""
        text = self.text
        commands = "\n".join(self.command(name) for name in self.names)
        sections = [
            f"{WIDE}# {self.title}\n\n<p class='lede'>{text_html(text.summary)}</p>",
            self._names(),
            *(self._picture(name) for name in self.names),
            f"```sh\n{commands}\nbench show {self.kind} {self.names[0]}\n```",
            _section("Threat model" if self.kind == "attack" else "What it does", self._facts()),
            _section("Paper and code", text.paper),
            _section("Formula" if 'class="formula"' in text.formula else "About", text.formula),
            _section("Differences from the paper and its code", text.differences or self._same()),
            _section("Settings", self._settings()),
            _section("Published results", self._results()),
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

    def _names(self) -> str:
        rows = [
            f'<li id="{name}"><code>{name.replace("_", "-")}</code> '
            f"{escape(METHODS[self.kind].published(name))}{_set(METHODS[self.kind][name])} "
            f"{_tags(self.labels(name))}</li>"
            for name in self.names
        ]
        return f'<ul class="names">{"".join(rows)}</ul>'

    def _picture(self, name: str) -> str:
        if self.kind == "victim":
            return self._plane(name)
        picture = PICTURES / f"{self.kind}-{name}.png"
        if not picture.is_file():
            return ""
        title = METHODS[self.kind].published(name)
        if self.kind == "defense":
            rows = f"Queries with CIBA's trigger, the same after {title}, and {DIFFERENCE}."
        else:
            one = self.instance(name).threat
            poison = f"training images, the poison that {title} makes of them, and {DIFFERENCE}"
            queries = "queries, the same with the trigger, and their difference"
            parts = [
                *([] if one.control == "model" else [poison]),
                *([] if one.trigger == "none" else [queries]),
            ]
            rows = f"From above: {'; then '.join(parts)}."
        return (
            f'<figure class="pixels"><img src="../pictures/{picture.name}" alt="{escape(rows)}">'
            f"<figcaption>{escape(rows)}</figcaption></figure>"
        )

    def _plane(self, name: str) -> str:
        """The published figure of a victim's codes, if there is one."""
        figure = f"results/figures/quick-codes-{name.replace('_', '-')}.png"
        if not (ROOT / figure).is_file():
            return ""
        title = METHODS[self.kind].published(name)
        text = f"Codes of {title} in the suite `quick`, on the plane in which they spread most."
        return f"![Codes of {title}](../../{figure}){{ .codes }}\n\n*{text}*"

    def _facts(self) -> str:
        one = self.instance(self.names[0])
        facts = {"attack": threat_of, "defense": defense_facts, "victim": victim_facts}
        return facts_table(facts[self.kind](one))

    def _settings(self) -> str:
        said = (inspect.getdoc(self.method.cls) or "").replace("at the top of the file", "above")
        texts = argument_texts(said.replace("see the top of the file", "see above"))
        rows = [
            f"<tr><td><code>{self.kind}.{name}</code></td><td><code>{_value(value)}</code>"
            f"</td><td>{text_html(texts.get(name, ''))}</td></tr>"
            for name, value in self.method.resolve({}).items()
        ]
        if not rows:
            return "It has none."
        return (
            "Change one with `--set NAME=VALUE`.\n\n"
            "<table><thead><tr><th>Name</th><th>Default</th><th>Meaning</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )

    def _same(self) -> str:
        return "Its file names none." if self.text.paper else ""

    def _results(self) -> str:
        table = RESULTS[self.kind](self.names)
        return f"{UNITS}\n\n{table}" if table else NO_RESULTS


def cards(kind: str) -> list[Card]:
    """The cards of one kind, in the order of file names."""
    registry = METHODS[kind]
    files: dict[str, list[str]] = {}
    for name in registry:
        files.setdefault(registry.module(name).rpartition(".")[2], []).append(name)
    return [
        Card(kind, (own, *(name for name in names if name != own)))
        for own, names in sorted(files.items())
    ]


def overview(kind: str, introduction: str) -> str:
    """The page that shows every method of a kind."""
    shown = "".join(_entry(card, name) for card in cards(kind) for name in card.names)
    return f'{introduction}\n\n<div class="cards">{shown}</div>\n'


def _entry(card: Card, name: str) -> str:
    registry = METHODS[card.kind]
    picture = PICTURES / f"{card.kind}-{name}.png"
    image = f'<img src="../pictures/{picture.name}" alt="" loading="lazy">'
    gain = record_rows.gain_on_quick(name) if card.kind == "attack" else ""
    own = name == card.names[0]
    summary = card.text.summary if own else f"{card.title} with {_settings_of(registry[name])}."
    labels = [*card.labels(name), *([f"gain {gain} in quick"] if gain else [])]
    return (
        f'<a class="card" href="{card.names[0]}.html#{name}">'
        f"{f'<span class=strip>{image}</span>' if picture.is_file() else ''}"
        f"<b>{escape(registry.published(name))}</b> <code>{name.replace('_', '-')}</code>"
        f"<span class=what>{text_html(summary)}</span>{_tags(labels)}</a>"
    )


def threat_of(one: Any) -> Iterator[tuple[str, str]]:
    """What an attack needs and does, in words."""
    threat = one.threat
    if threat.control == "model":
        yield "The attacker controls", "the trained model, which it edits; no image is poisoned"
    elif not one.poisons:
        yield "The attacker controls", "nothing: this is a control"
    else:
        yield "The attacker controls", "some training images"
        yield (
            "Labels",
            {
                "clean": "clean: poison is made of the target's own images, and no label changes",
                "dirty": "dirty: images of other classes get the target's label",
            }[threat.label],
        )
    yield (
        "The attacker knows",
        {
            "none": "no network; training images and their labels only",
            "surrogate": "a network of its own, trained on clean data (the surrogate)",
        }[threat.knowledge],
    )
    yield "Trigger", {"none": "none"}.get(threat.trigger, f"{threat.trigger}, " + (
        "one for all images" if threat.universal else "another for every image"
    ))  # fmt: skip
    if threat.chosen:
        yield "Attacked queries", f"{threat.chosen} that the attacker chose and knows"
    elif threat.source != "all":
        yield "Attacked queries", "those of one class, which the setting `source` names"
    if not threat.targeted:
        yield "Aim", "whatever class the trigger leads to"
    if getattr(one, "covers", 0):
        yield "Covers", f"{one.covers:g} for each poisoned image: they keep their label"
    if one.poisons:
        yield "Delivery", f"{one.delivery}, unless `--delivery` says otherwise"


def defense_facts(one: Any) -> Iterator[tuple[str, str]]:
    """What a defense does and needs, in words."""
    for hook in one.hooks():
        yield hook, HOOKS[hook]
    if one.assumes.sees:
        yield "The defender sees", "; ".join(SEES[name] for name in sorted(one.assumes.sees))
    if one.assumes.needs:
        yield "It needs of the network", ", ".join(sorted(one.assumes.needs))
    numbers = {"clean": "Clean images", "per_class": "Clean images of each class"}
    for name, text in (numbers | {"group": "Training images of one class"}).items():
        if getattr(one.assumes, name):
            yield text, f"at least {getattr(one.assumes, name)}"
    if one.strength:
        yield (
            "Strength",
            (
                f"`{one.strength}`, tuned over {', '.join(f'{value:g}' for value in one.grid)} "
                "with `--operating-point tuned`"
            ),
        )


def victim_facts(one: Any) -> Iterator[tuple[str, str]]:
    """What a victim does to network and training, in words."""
    yield "Training", "the whole network" if one.trained else "none: it fits frozen features"
    for usual, own in one.recipes.items():
        yield "Recipe", f"{own} ({RECIPES[own][0]}), where the data set's default is {usual}"


def _set(method: Method[Any]) -> str:
    return f" <small>({escape(_settings_of(method))})</small>" if method.preset else ""


def _settings_of(method: Method[Any]) -> str:
    return ", ".join(f"{method.kind}.{name}={value}" for name, value in method.preset.items())


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _tags(labels: Iterable[str]) -> str:
    tags = "".join(f'<span class="tag">{escape(label)}</span> ' for label in labels)
    return f'<span class="tags">{tags}</span>'


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""
