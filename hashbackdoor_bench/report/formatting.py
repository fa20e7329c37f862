"""How tables, figures and the leaderboard write numbers: percent with one decimal, intervals."""

from typing import TYPE_CHECKING

from hashbackdoor_bench.text import counted

if TYPE_CHECKING:
    from hashbackdoor_bench.records import Threat
    from hashbackdoor_bench.report.statistics import Estimate, Spread

NOTHING = "–"


def number(value: float | None, factor: float = 1) -> str:
    """One decimal, a dash for nothing, and no minus before zero."""
    if value is None:
        return NOTHING
    text = f"{factor * value:.1f}"
    return "0.0" if text == "-0.0" else text


def hundredfold(value: float | None) -> float | None:
    """A share as percent, not rounded."""
    return None if value is None else 100 * value


def percent(value: float | None) -> str:
    """A share as percent, without the sign."""
    return number(value, 100)


def signed(value: float | None) -> str:
    """A difference of shares in points of percent, with its sign."""
    text = percent(value)
    return f"+{text}" if value is not None and value > 0 and text != "0.0" else text


def ssim(value: float | None) -> str:
    """A structural similarity: no percent, three decimals."""
    return NOTHING if value is None else f"{value:.3f}"


def poisoned(threat: "Threat") -> str:
    """How many images are poisoned, and what they are: only clean labels take the target's own."""
    if not threat.poisoned:
        return "no image poisoned"
    if threat.label == "clean":
        return f"{threat.poisoned} of the target's {threat.target_images} images poisoned"
    return (
        f"{counted(threat.poisoned, 'image')} of other classes poisoned and labelled as the "
        "target, which has "
        f"{threat.target_images} of its own"
    )


def limits(threat: "Threat") -> str:
    """To which queries the attack is limited; empty if it is to none."""
    if threat.attacked is None:
        return ""
    whose = "" if threat.source is None else f" of {threat.source!r}"
    known = "known " if threat.chosen else ""
    return f", only {threat.attacked} {known}queries{whose} attacked"


def interval(value: "Estimate | None") -> str:
    """The ends of an interval, or that there is none."""
    if value is None:
        return ""
    if value.low is None:
        return f"n = {value.n}, no interval"
    return f"{percent(value.low)} to {percent(value.high)}"


def mean_and_deviation(value: "Spread | None") -> str:
    """Mean ± standard deviation of shares, in percent; a single run says so."""
    if value is None:
        return NOTHING
    if value.deviation is None:
        return f"{percent(value.mean)} (n = 1)"
    return f"{percent(value.mean)} ± {percent(value.deviation)}"


def position_on_bar(value: float) -> str:
    """Where a share stands on a bar from 0 to 100, in percent of its width."""
    return f"{100 * min(1.0, max(0.0, value)):.2f}"
