"""The optimizer in a process of its own answers as it does in ours, and whatever becomes of it the broker goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from broker.service import solver as module
from broker.service.solver import SolverGone, SolverProcess
from optimizer.problem import Ask, Group, Problem
from optimizer.solution import Solution
from optimizer.solve import solve


def problem(*, asks: int = 3, groups: int = 4) -> Problem:
    return Problem(
        groups=tuple(
            Group(id=f"g{at}", cluster=f"c{at}", kind="k", price_micros=1_000_000 + at, count=8, per_node=(4, 4))
            for at in range(groups)
        ),
        asks=tuple(
            Ask(id=f"a{at}", tenant="t", devices=4, duration_s=3_600, created=at, same_node=at == 0)
            for at in range(asks)
        ),
    )


def answer(of: SolverProcess, asked: Problem) -> Solution:
    return of(asked, time_limit_s=5.0, alternatives=3, unused=True, previous=None)


@pytest.fixture(scope="module")
def one() -> Iterator[SolverProcess]:
    made = SolverProcess()
    yield made
    made.close()


def test_it_answers_as_the_optimizer_does_here(one: SolverProcess) -> None:
    asked = problem()
    there, here = answer(one, asked), solve(asked, time_limit_s=5.0, alternatives=3)
    assert (there.placements, there.unplaced, there.goals) == (here.placements, here.unplaced, here.goals)


def test_a_group_that_changed_is_seen_as_it_is_now_though_the_others_are_not_sent_again(one: SolverProcess) -> None:
    before = problem()
    cheapest = answer(one, before).placements["a0"].group
    changed = tuple(
        replace(group, price_micros=9_000_000) if group.id == cheapest else group for group in before.groups
    )
    after = replace(before, groups=changed)
    assert answer(one, after).placements["a0"].group != cheapest
    fewer = replace(before, groups=before.groups[2:])
    assert answer(one, fewer).placements == solve(fewer, time_limit_s=5.0, alternatives=3).placements
    assert answer(one, before).placements["a0"].group == cheapest


def test_an_error_of_the_optimizer_is_an_error_here_and_the_process_goes_on(one: SolverProcess) -> None:
    pid = one.pid
    with pytest.raises(RuntimeError, match="OutOfRange: The time limit"):
        one(problem(), time_limit_s=-1.0, alternatives=3, unused=True, previous=None)
    assert answer(one, problem()).placements
    assert one.pid == pid


def test_a_process_that_was_killed_is_followed_by_another(one: SolverProcess) -> None:
    answer(one, problem())
    assert one.pid is not None
    os.kill(one.pid, signal.SIGSTOP)  # so that it is in the middle of it when it is killed
    threading.Timer(0.2, os.kill, (one.pid, signal.SIGKILL)).start()
    with pytest.raises(SolverGone, match="it ended"):
        answer(one, problem())
    assert answer(one, problem()).placements


def test_a_process_that_hangs_is_ended_when_its_time_is_over(
    one: SolverProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(one, problem())
    hung = one.pid
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    monkeypatch.setattr(module, "GRACE_S", 0.2)
    with pytest.raises(SolverGone, match="in time"):
        one(problem(), time_limit_s=0.1, alternatives=3, unused=True, previous=None)
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)
    monkeypatch.undo()
    assert answer(one, problem()).placements


def test_closing_it_cancels_what_is_under_way_and_nothing_starts_it_again() -> None:
    made = SolverProcess()
    made.start()
    pid = made.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    failed: list[Exception] = []

    def ask() -> None:
        try:
            answer(made, problem())
        except SolverGone as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not made.busy:
        thread.join(0.01)
    made.close()
    thread.join(10)
    assert len(failed) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(SolverGone, match="shutting down"):
        answer(made, problem())
