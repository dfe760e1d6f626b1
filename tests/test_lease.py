"""The life of a lease: its table as a graph, its times, its money."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from broker.domain.errors import BadTerms, Conflict, IllegalTransition
from broker.domain.hearing import Word, hear
from broker.domain.lease import LIVE, TRANSITIONS, Ending, Event, Lease, State, render_table
from broker.domain.rules import Rules
from broker.wire import leases as wire

NOW = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC)
RULES = Rules()


def pending(**fields: object) -> Lease:
    values: dict[str, object] = {
        "id": "lse-1",
        "request": "req-1",
        "offer": "ofr-1",
        "lender": "b",
        "borrower": "a",
        "tenant": "team-a",
        "lender_tenant": "team-b",
        "devices": 8,
        "price_micros": 2_000_000,
        "duration_s": 3_600,
        "max_duration_s": 7_200,
        "reclaim_notice_s": 300,
        "minimum_runtime_s": 600,
        "body": "{}",
        "created_at": NOW,
    }
    return Lease(**{**values, **fields})  # type: ignore[arg-type]  # the tests' own shorthand


def reserved(**fields: object) -> Lease:
    return pending(**fields).reserved(fence=7, now=NOW, rules=RULES)


def active(**fields: object) -> Lease:
    return reserved(**fields).prepared(fence=7).activated(now=NOW)


# --- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_of_state_and_event_is_in_the_table_or_refused_without_a_trace(state: State, event: Event) -> None:
    lease = replace(pending(), state=state)
    if (state, event) in TRANSITIONS:
        assert lease.apply(event).state is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"lse-1 is {state.value.lower()}"):
            lease.apply(event)
        assert lease.state is state


def test_every_state_can_be_reached_and_every_state_can_end() -> None:
    def reach(start: State) -> set[State]:
        seen, todo = {start}, [start]
        while todo:
            here = todo.pop()
            for (state, _), after in TRANSITIONS.items():
                if state is here and after not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    assert reach(State.PENDING) == set(State)
    for state in State:
        assert State.ENDED in reach(state)


def test_nothing_leaves_the_end_and_nothing_comes_back_to_the_beginning() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] is State.ENDED]
    assert State.PENDING not in TRANSITIONS.values()


def test_devices_become_free_only_by_a_lenders_word_or_after_quarantine() -> None:
    freeing = {event for (state, event), after in TRANSITIONS.items() if state in LIVE and after not in LIVE}
    assert freeing == {Event.CONFLICT, Event.RELEASE, Event.CLEAR}
    assert [state for (state, event) in TRANSITIONS if event is Event.CLEAR] == [State.QUARANTINED]


def test_a_lease_becomes_active_only_after_the_lender_prepared_it() -> None:
    into = {(state, event) for (state, event), after in TRANSITIONS.items() if after is State.ACTIVE}
    assert into == {(State.PREPARED, Event.ACTIVATE), (State.ACTIVE, Event.RENEW), (State.ORPHANED, Event.RESUME)}
    assert [pair for pair, after in TRANSITIONS.items() if after is State.PREPARED] == [(State.RESERVED, Event.PREPARE)]


def test_the_printed_table_shows_every_row() -> None:
    lines = render_table().splitlines()
    assert len(lines) == 1 + len(State)
    width = 12
    for row, state in zip(lines[1:], State, strict=True):
        cells = [row[(n + 1) * width : (n + 2) * width].strip() for n in range(len(Event))]
        for event, cell in zip(Event, cells, strict=True):
            after = TRANSITIONS.get((state, event))
            assert cell == ("·" if after is None else after.value)


def test_the_wire_knows_every_state_and_every_ending() -> None:
    assert {state.value for state in State} == {state.value for state in wire.LeaseState}
    assert {ending.value for ending in Ending} == {ending.value for ending in wire.Ending}


# --- fences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fence", [0, 6, 8])
def test_a_lenders_word_under_another_fence_changes_nothing(fence: int) -> None:
    for lease in (reserved(), active(), active().drained(now=NOW, ending=Ending.RETURNED)):
        for phase in ("held", "lent", "released", "conflict", "refused"):
            outcome = hear(lease, Word(role="lender", phase=phase, fence=fence), now=NOW)
            assert outcome.lease is lease
            assert outcome.types == ()


def test_a_late_hold_of_a_lease_that_is_draining_does_not_revive_it() -> None:
    lease = reserved().drained(now=NOW, ending=Ending.TIMED_OUT)
    assert hear(lease, Word(role="lender", phase="held", fence=7), now=NOW).lease.state is State.DRAINING


def test_prepare_and_release_need_the_very_fence() -> None:
    with pytest.raises(Conflict, match="fence 7"):
        reserved().prepared(fence=8)
    with pytest.raises(Conflict, match="fence 7"):
        active().released(now=NOW, fence=6)


# --- time ----------------------------------------------------------------------------------------------------------


def test_it_expires_at_a_whole_second_and_the_broker_never_acts_before() -> None:
    lease = active()
    assert lease.expires_at == NOW.replace(microsecond=0) + timedelta(hours=1)
    assert lease.overdue(now=lease.expires_at - timedelta(microseconds=1), rules=RULES) is None
    event, after = lease.overdue(now=lease.expires_at, rules=RULES) or (None, lease)
    assert event is Event.DRAIN
    assert (after.state, after.ending) == (State.DRAINING, Ending.EXPIRED)


def test_an_unclean_end_frees_nothing_before_exp_plus_2e_plus_d_plus_q() -> None:
    lease = active()
    assert lease.expires_at is not None
    for ended in (lease.drained(now=NOW, ending=Ending.RETURNED), lease.lost()):
        until = lease.expires_at + timedelta(seconds=2 * 5 + 30 + 15)
        assert ended.unclean_until(RULES) == until
        assert ended.overdue(now=until - timedelta(microseconds=1), rules=RULES) is None
        event, after = ended.overdue(now=until, rules=RULES) or (None, ended)
        assert event is Event.QUARANTINE
        assert after.state is State.QUARANTINED
        assert after.overdue(now=until + timedelta(days=365), rules=RULES) is None
        assert after.cleared(now=until).state is State.ENDED


def test_a_hold_that_takes_too_long_is_drained_and_stays_live() -> None:
    lease = reserved()
    event, after = lease.overdue(now=NOW + RULES.hold, rules=RULES) or (None, lease)
    assert event is Event.DRAIN
    assert (after.state, after.ending) == (State.DRAINING, Ending.TIMED_OUT)
    assert after.state in LIVE


def test_a_renewal_counts_from_now_and_never_passes_the_maximum() -> None:
    lease = active()
    later = NOW + timedelta(minutes=30)
    more = lease.renewed(now=later, duration_s=3_600)
    assert more.expires_at == later.replace(microsecond=0) + timedelta(hours=1)
    assert more.generation == lease.generation + 1
    most = lease.renewed(now=later, duration_s=86_400)
    assert most.expires_at == lease.latest_end == NOW.replace(microsecond=0) + timedelta(seconds=7_200)
    with pytest.raises(BadTerms, match="nothing to gain"):
        most.renewed(now=later, duration_s=86_400)
    with pytest.raises(BadTerms, match="nothing to gain"):
        lease.renewed(now=later, duration_s=1_800)


def test_what_is_over_or_being_taken_back_cannot_be_renewed() -> None:
    lease = active()
    with pytest.raises(Conflict, match="expired"):
        lease.renewed(now=NOW + timedelta(hours=1), duration_s=3_600)
    with pytest.raises(Conflict, match="taken back"):
        lease.reclaimed(now=NOW, message="").renewed(now=NOW, duration_s=5_000)
    with pytest.raises(IllegalTransition):
        reserved().renewed(now=NOW, duration_s=5_000)


def test_a_reclaim_waits_for_the_notice_and_the_minimum_runtime() -> None:
    early = active().reclaimed(now=NOW + timedelta(seconds=10), message="home work")
    assert early.drain_from == NOW + timedelta(seconds=600)
    late = active().reclaimed(now=NOW + timedelta(seconds=500), message="home work")
    assert late.drain_from == NOW + timedelta(seconds=800)
    assert late.state is State.ACTIVE
    again = late.reclaimed(now=NOW + timedelta(seconds=700), message="still")
    assert again.drain_from == late.drain_from
    assert late.overdue(now=NOW + timedelta(seconds=799), rules=RULES) is None
    _, after = late.overdue(now=NOW + timedelta(seconds=800), rules=RULES) or (None, late)
    assert (after.state, after.ending) == (State.DRAINING, Ending.RECLAIMED)


def test_a_lease_that_expires_within_its_notice_ends_as_expired() -> None:
    lease = active(duration_s=60).reclaimed(now=NOW, message="home work")
    _, after = lease.overdue(now=NOW + timedelta(seconds=60), rules=RULES) or (None, lease)
    assert after.ending is Ending.EXPIRED


def test_an_orphan_whose_lender_is_back_goes_on_unless_its_end_has_come() -> None:
    orphan = active().lost()
    assert orphan.expires_at is not None
    assert orphan.resumed(now=NOW).state is State.ACTIVE
    late = orphan.resumed(now=orphan.expires_at)
    assert (late.state, late.ending) == (State.DRAINING, Ending.EXPIRED)
    drained = active().drained(now=NOW, ending=Ending.RETURNED).lost()
    assert drained.resumed(now=NOW).state is State.DRAINING


def test_a_reclaims_notice_outlives_its_lenders_silence() -> None:
    orphan = active().reclaimed(now=NOW, message="home work").lost()
    assert orphan.drain_from is not None
    back = orphan.resumed(now=orphan.drain_from - timedelta(seconds=1))
    assert (back.state, back.drain_from) == (State.ACTIVE, orphan.drain_from)
    late = orphan.resumed(now=orphan.drain_from)
    assert (late.state, late.ending) == (State.DRAINING, Ending.RECLAIMED)


def test_a_lender_that_gave_up_by_itself_ends_the_lease_in_one_word() -> None:
    lease = active()
    assert lease.expires_at is not None
    over = hear(lease, Word(role="lender", phase="released", fence=7), now=lease.expires_at + timedelta(seconds=5))
    assert (over.lease.state, over.lease.ending) == (State.ENDED, Ending.EXPIRED)
    early = hear(lease, Word(role="lender", phase="released", fence=7, reason="node gone"), now=NOW)
    assert (early.lease.state, early.lease.ending, early.lease.message) == (State.ENDED, Ending.LOST, "node gone")


# --- money ---------------------------------------------------------------------------------------------------------


def test_it_costs_the_worst_case_while_it_lives_and_what_was_used_once_it_drains() -> None:
    assert reserved().cost_micros == 8 * 2_000_000
    brought = replace(reserved(), transfer_micros=5)
    assert brought.cost_micros == 8 * 2_000_000 + 5
    assert brought.drained(now=NOW + timedelta(minutes=1), ending=Ending.TIMED_OUT).cost_micros == 0
    lease = active()
    half = lease.drained(now=NOW + timedelta(minutes=30), ending=Ending.RETURNED)
    assert half.cost_micros == 8 * 1_000_000
    late = lease.drained(now=NOW + timedelta(hours=5), ending=Ending.EXPIRED)
    assert late.cost_micros <= 8 * 2_000_000
    assert reserved().drained(now=NOW + timedelta(minutes=1), ending=Ending.TIMED_OUT).cost_micros == 0


def test_draining_first_and_releasing_later_does_not_make_it_dearer() -> None:
    drained = active().drained(now=NOW + timedelta(minutes=30), ending=Ending.RETURNED)
    ended = drained.released(now=NOW + timedelta(minutes=50), fence=7)
    assert ended.cost_micros == drained.cost_micros
