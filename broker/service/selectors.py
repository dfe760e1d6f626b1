"""CEL selectors over what an offer says of its kind; the seam to the truth about devices."""

from dataclasses import dataclass

from broker.domain.errors import BadSelector
from broker.dra import cel
from broker.dra.model import DeviceView
from broker.dra.normalise import read_view
from broker.dra.reading import Malformed
from broker.kit.kept import Kept
from broker.wire.devices import Kind

_good: Kept[str, bool] = Kept(4_096)
"""Expressions that compile."""


def known_good(expression: str) -> bool:
    """It compiled before: no need to look again."""
    return _good.get(expression) is not None


def check(expression: str) -> None:
    """``BadSelector`` with the compiler's own words for an expression that can't be evaluated."""
    try:
        cel.compile_selector(expression)
    except cel.BadSelector as error:
        raise BadSelector(
            f"The selector doesn't compile: {str(error)[:600]}",
            errors=[{"pointer": "/devices/selector", "detail": str(error)[:600]}],
        ) from error
    _good.keep(expression, True)


def view(kind: Kind) -> DeviceView | None:
    """What a selector sees of the devices of this kind; None when it can't be read (it matches nothing then)."""
    try:
        return read_view(driver=kind.driver, attributes=kind.attributes, capacity=kind.capacity)
    except Malformed:
        return None


class Matcher:
    """Which kinds satisfy a request's driver and selector; asked for each pair once."""

    def __init__(self) -> None:
        self._matches: Kept[tuple[str, str | None, str | None], bool] = Kept(65_536)
        self._views: Kept[str, _Seen] = Kept(4_096)

    def view(self, key: str, kind: Kind) -> DeviceView | None:
        """What a selector sees of this kind, which ``key`` stands for; one for all who ask."""
        seen = self._views.get(key)
        if seen is None:
            seen = _Seen(view(kind))
            self._views.keep(key, seen)
        return seen.view

    def __call__(self, key: str, seen: DeviceView | None, *, driver: str | None, selector: str | None) -> bool:
        asked = key, driver, selector
        found = self._matches.get(asked)
        if found is None:
            found = _evaluate(seen, driver, selector)
            self._matches.keep(asked, found)
        return found


@dataclass(frozen=True, slots=True)
class _Seen:
    """So that one that can't be read is remembered, too."""

    view: DeviceView | None


def _evaluate(seen: DeviceView | None, driver: str | None, selector: str | None) -> bool:
    if seen is None or (driver is not None and driver != seen.driver):
        return False
    if selector is None:
        return True
    try:
        return cel.compile_selector(selector).matches(seen)
    except (cel.BadSelector, cel.SelectorError):
        return False  # to kube-scheduler an error is no answer either
