"""Reasons in words, for people: one sentence for each value that ``solution`` can hold.

The data stays the truth (programs read ``Why``, ``Binding`` and ``Change``); these sentences are made from it alone,
so that a refusal reads the same in a terminal, a problem document and a pod's event.
"""

from __future__ import annotations

from collections.abc import Iterator

from optimizer.solution import Binding, Change, Field, Limit, Lost, Placement, Refusal, Why

_WHY = {
    Why.OWN_CLUSTER: "the borrower's own cluster",
    Why.SELECTOR: "devices do not match the selectors",
    Why.AVOIDED: "already failed this request",
    Why.TENANT: "the lender does not admit this tenant",
    Why.CLUSTER: "cluster not allowed",
    Why.REGION: "region not allowed",
    Why.PROVIDER: "provider not allowed",
    Why.CONFIDENTIAL: "not declared confidential",
    Why.TOO_LONG: "longer than the lender lends",
    Why.TOO_SHORT: "shorter than the lender lends",
    Why.TIER: "in no tier of the burst policy",
    Why.TIER_PRICE: "above its tier's price cap",
    Why.PRICE_CAP: "above the price cap",
    Why.TOTAL_CAP: "above the cap for the whole",
    Why.COUNT: "too few free devices",
    Why.NODE: "no single node with enough free devices",
    Why.SHARED: "the lender keeps too much back",
    Why.BUDGET: "the budget cannot hold its worst case",
    Why.QUOTA: "the quota cannot hold its devices",
    Why.VALUE: "costs more than it is worth",
    Why.JURISDICTION: "jurisdiction not allowed",
    Why.INTERRUPTIBLE: "its lender may reclaim before the end",
    Why.WINDOW: "no start in its window lets it end in time",
    Why.PINNED: "a running lease that must not be moved is elsewhere",
}
_LOST = {
    Lost.TAKEN: "taken by other requests of this round",
    Lost.LATER_TIER: "in a later tier",
    Lost.NOT_CONFIDENTIAL: "not confidential, which was preferred",
    Lost.MOVE: "moving costs more than it gains",
    Lost.COSTLIER: "costlier",
    Lost.LOOSER: "as cheap, but a looser fit",
    Lost.OTHERS: "better left to other requests",
}
_LIMIT = {
    Limit.GROUP: "offer {id} lacks {by} free",
    Limit.NODE: "no node of offer {id} has enough on its own ({by} short)",
    Limit.SHARED: "shared capacity {id} is {by} short",
    Limit.BUDGET: "budget {id} is {money} short",
    Limit.QUOTA: "quota {id} is {by} short",
}
_CHANGE = {
    Field.PRICE_CAP: "a price cap of {money} per device-hour",
    Field.TIER_CAP: "a cap of {money} per device-hour on tier {id}",
    Field.TOTAL_CAP: "a cap of {money} for the whole",
    Field.DEVICES: "{to} devices instead",
    Field.WORKERS: "{to} workers instead",
    Field.DURATION: "a duration of {to} s instead",
    Field.REGION: "region {to} allowed",
    Field.PROVIDER: "provider {to} allowed",
    Field.CLUSTER: "cluster {to} allowed",
    Field.CONFIDENTIAL: "confidential not required",
    Field.SAME_NODE: "several nodes allowed",
    Field.BUDGET: "{money} more in budget {id}",
    Field.QUOTA: "{to} devices more in quota {id}",
    Field.JURISDICTION: "jurisdiction {to} allowed",
    Field.UNINTERRUPTED: "offers allowed that may be reclaimed",
    Field.START_BY: "a start up to {to} s from now",
    Field.END_BY: "a deadline {to} s from now",
    Field.SPLIT: "its workers spread over {to} offers",
}


def money(micros: int) -> str:
    """Dollars, rounded up to the cent from a dollar on, exact below: a cap that is told must not be too low."""
    if abs(micros) < 1_000_000:
        return f"${micros / 1_000_000:.6f}".rstrip("0").rstrip(".")
    return f"${-(-micros // 10_000) / 100:,.2f}"


def sentence(reason: Why | Lost | Binding | Change | Refusal | Placement) -> str:
    """What it says, in words: a phrase for a part, a sentence for a refusal or a placement."""
    if isinstance(reason, Why):
        return ", ".join(_WHY[bit] for bit in reason)
    if isinstance(reason, Lost):
        return _LOST.get(reason, "not eligible")
    if isinstance(reason, Binding):
        return _LIMIT[reason.limit].format(id=reason.id, by=reason.short_by, money=money(reason.short_by))
    if isinstance(reason, Change):
        worth = money(reason.to) if isinstance(reason.to, int) else ""
        return _CHANGE[reason.field].format(to=reason.to, id=reason.id, money=worth)
    if isinstance(reason, Placement):
        return (
            f"{reason.devices} devices of {reason.group} at {money(reason.price_micros)} per device-hour, "
            f"{money(reason.cost_micros)} at most."
        )
    return " ".join(_refusal(reason))


def _refusal(refusal: Refusal) -> Iterator[str]:
    if refusal.groups == 0:
        yield "Nobody offers anything at the moment."
        return
    if refusal.removed:
        counts = sorted(refusal.removed.items(), key=lambda item: -item[1])
        listed = "; ".join(f"{sentence(bit)} ({count})" for bit, count in counts)
        yield f"Of {refusal.groups} offers {refusal.eligible} would suit alone. Removed: {listed}."
    else:
        yield f"All {refusal.groups} offers would suit alone."
    if refusal.binding:
        yield f"In the way: {'; '.join(sentence(each) for each in refusal.binding)}."
    if refusal.changes:
        yield f"It would be placed with {', or '.join(sentence(each) for each in refusal.changes)}."
