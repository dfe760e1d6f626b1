"""One request against one group, in plain integers: what it would take there, what that costs, and what forbids it.

Written from the words of ``asks`` and ``groups``, a second time and without the solver's arrays, so that ``check`` can
contradict them.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from optimizer.problem import MAX_MONEY, Ask, Confidential, Form, Group, Tier

RECLAIMS = 3600 * 1_000_000
"""Group-seconds that ``Group.reclaims`` is counted for: a million hours."""


def up(amount: int, by: int) -> int:
    """The quotient, rounded up."""
    return -(-amount // by)


def form_of(ask: Ask, group: str) -> int | None:
    """Which form takes a group: 0 is the ask's own, 1 the first of ``forms``; None where its devices suit in none."""
    if ask.matched is None or group in ask.matched:
        return 0
    suiting = (at for at, form in enumerate(ask.forms, 1) if form.matched is None or group in form.matched)
    return next(suiting, None)


def form_at(ask: Ask, rank: int) -> Form:
    """The form of that rank; where there is none, the ask's own."""
    if 1 <= rank <= len(ask.forms):
        return ask.forms[rank - 1]
    return _whole(ask.devices, ask.workers)


@lru_cache(maxsize=1024)
def _whole(devices: int, workers: int) -> Form:
    """An ask's own form: thousands have the same few. Which groups it takes is for ``form_of`` to say."""
    return Form(devices=devices, workers=workers)


def duration_of(ask: Ask, form: Form) -> int:
    """Seconds that the work takes in this form, rounded up."""
    return ask.duration_s if form.speed_milli == 1000 else max(1, up(ask.duration_s * 1000, form.speed_milli))


def units_of(form: Form, group: Group) -> int:
    """Units that one worker takes, whole."""
    return up(form.devices, group.unit)


def hourly_of(form: Form, group: Group, *, start_s: int = 0, workers: int | None = None) -> int:
    """µUSD an hour of so many workers (None: all of the form's)."""
    count = form.workers if workers is None else workers
    return group.price_at(start_s) * group.unit * units_of(form, group) * count


def cost_of(ask: Ask, group: Group, *, start_s: int = 0, workers: int | None = None, form: Form | None = None) -> int:
    """µUSD, worst case: whole units for the whole duration, rounded up, and transfer; of all workers, or so many.

    Here and below, ``form`` spares a caller who knows it already the search for the form that takes the group.
    """
    form = form or _form(ask, group)
    hourly = hourly_of(form, group, start_s=start_s, workers=workers)
    return up(hourly * duration_of(ask, form), 3600) + ask.transfer_micros.get(group.region, 0)


def rate_of(ask: Ask, group: Group, *, start_s: int = 0) -> Fraction:
    """µUSD per requested device-hour as if all workers were there, whole units and transfer included."""
    return Fraction(*_rate(ask, group, _form(ask, group), start_s))


def loss_of(ask: Ask, *groups: Group, start_s: int = 0, moved: bool = False, form: Form | None = None) -> int:
    """µUSD that count beside the cost and are not paid: expected reclaims on each group, waiting, being moved.

    What is beyond a billion dollars counts as a billion.
    """
    loss = up(ask.delay_micros * max(0, start_s - ask.not_before_s), 3600)
    if ask.restart_micros:
        for group in groups:
            loss += up(group.reclaims * duration_of(ask, form or _form(ask, group)) * ask.restart_micros, RECLAIMS)
    if moved and ask.running is not None:
        loss += ask.running.move_micros or 0
    return min(loss, MAX_MONEY)


def tier_of(ask: Ask, group: Group) -> int | None:
    """Rank of the first tier that admits the group by place; None where none does."""
    if not ask.tiers:
        return 0
    return next((rank for rank, tier in enumerate(ask.tiers) if _admits(tier, group)), None)


def unsuitable(ask: Ask, group: Group, *, start_s: int = 0, form: Form | None = None) -> Iterator[str]:
    """What forbids this group to this ask whoever else is placed; amounts are not looked at."""
    if group.cluster == ask.cluster:
        yield "it is the borrower's own cluster"
    if form_of(ask, group.id) is None:
        yield "its devices do not match"
    if group.id in ask.avoid:
        yield "it already failed this request"
    admitted = group.allowed_tenants is None or ask.tenant in group.allowed_tenants
    if not admitted and not (group.lender_tenant and group.lender_tenant == ask.tenant):
        yield f"the lender does not admit tenant {ask.tenant!r}"
    for what, value, allowed in (
        ("cluster", group.cluster, ask.clusters),
        ("region", group.region, ask.regions),
        ("jurisdiction", group.jurisdiction, ask.jurisdictions),
        ("provider", group.provider, ask.providers),
    ):
        if allowed is not None and value not in allowed:
            yield f"{what} {value!r} is not allowed"
    if ask.confidential is Confidential.REQUIRE and not group.confidential:
        yield "it does not declare to be confidential"
    form = form or _form(ask, group)
    seconds = duration_of(ask, form)
    if ask.uninterrupted and group.uninterrupted_s is not None and group.uninterrupted_s < seconds:
        yield f"its lender may reclaim it after {group.uninterrupted_s} s"
    if not group.min_duration_s <= seconds <= group.max_duration_s:
        yield f"the lender does not lend for {seconds} s"
    yield from _untimely(ask, start_s, seconds)
    running = ask.running
    if running is not None and running.move_micros is None and all(held.group != group.id for held in running.held):
        yield "it runs elsewhere and must not be moved"
    yield from _dear(ask, group, form, start_s)


def _untimely(ask: Ask, start_s: int, seconds: int) -> Iterator[str]:
    """What forbids an ordinary option to start then and take so long."""
    if not ask.not_before_s <= start_s <= ask.latest_s:
        yield f"{start_s} s is no start between {ask.not_before_s} and {ask.latest_s} s"
    if ask.end_by_s is not None and start_s + seconds > ask.end_by_s:
        yield f"it would end at {start_s + seconds} s, after its deadline of {ask.end_by_s} s"
    if ask.running is not None and start_s != 0:
        yield "it runs already and cannot start later"


def _dear(ask: Ask, group: Group, form: Form, start_s: int) -> Iterator[str]:
    # Not as a fraction: reducing one costs more than all the rest of the checks together.
    amount, per = _rate(ask, group, form, start_s)
    cost, tier = up(amount, 3600), tier_of(ask, group)
    if ask.price_cap_micros is not None and amount > ask.price_cap_micros * per:
        yield f"{amount / per:.0f} µUSD per device-hour is above the cap of {ask.price_cap_micros}"
    if cost > (MAX_MONEY if ask.total_cap_micros is None else ask.total_cap_micros):
        yield f"{cost} µUSD for the whole is above the cap"
    if tier is None:
        yield "no tier admits it"
        return
    cap = ask.tiers[tier].price_cap_micros if ask.tiers else None
    if cap is not None and amount > cap * per:
        yield f"{amount / per:.0f} µUSD per device-hour is above its tier's cap of {cap}"


def _rate(ask: Ask, group: Group, form: Form, start_s: int) -> tuple[int, int]:
    """µUSD and the device-hours (both × 3600 × hours, to stay whole) whose quotient is the rate."""
    seconds = duration_of(ask, form)
    hourly = hourly_of(form, group, start_s=start_s)
    transfer = ask.transfer_micros.get(group.region, 0)
    return hourly * seconds + 3600 * transfer, form.devices * form.workers * seconds


def _form(ask: Ask, group: Group) -> Form:
    return form_at(ask, form_of(ask, group.id) or 0)


def _admits(tier: Tier, group: Group) -> bool:
    return (
        (tier.clusters is None or group.cluster in tier.clusters)
        and (tier.providers is None or group.provider in tier.providers)
        and (tier.regions is None or group.region in tier.regions)
        and (tier.jurisdictions is None or group.jurisdiction in tier.jurisdictions)
        and (tier.groups is None or group.id in tier.groups)
    )
