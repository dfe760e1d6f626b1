"""Watching a request on its way: one line that fills up on a terminal, a line for each step anywhere else."""

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from broker.wire.requests import RequestState, RequestView, Step
from lendmesh.client import Client

STEPS = {
    Step.QUEUED: "the broker has it",
    Step.SOLVING: "all open requests are placed together",
    Step.RESERVED: "the lender's agent is asked to hold the devices",
    Step.HELD: "the lender's own scheduler has given them",
    Step.ACTIVE: "the lease is signed",
    Step.MIRRORED: "both clusters hold the claims",
}
OVER = (RequestState.REFUSED, RequestState.CANCELLED, RequestState.CLOSED)


async def follow(broker: Client, view: RequestView, out: Console) -> RequestView:
    """Say each step as it is reached, until the request is mirrored or at its end."""
    with _Line(view.id, out) as line:
        line.say(view)
        if done(view):
            return view
        async for _, current in broker.watch(RequestView, "/v1/requests/watch", after=view.revision):
            if current.id != view.id:
                continue
            if current.message and current.message != view.message and not current.reasons:
                line.remark(current.message)
            view = current
            line.say(view)
            if done(view):
                break
    return view


def done(view: RequestView) -> bool:
    """Nothing more will come of watching it."""
    return view.step in (Step.MIRRORED, Step.ENDED) or view.state in OVER


class _Line:
    """The line, or the lines."""

    def __init__(self, request: str, out: Console) -> None:
        self._request, self._out = request, out
        self._began = time.monotonic()
        self._reached: list[Step] = []
        self._state: RequestState | None = None
        self._live = Live(console=out, refresh_per_second=12, get_renderable=self._drawn) if out.is_terminal else None

    def __enter__(self) -> "_Line":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, view: RequestView) -> None:
        """What ``view`` has reached beyond what was said."""
        self._state = view.state
        order = list(STEPS)
        last = order.index(view.step) if view.step in STEPS else 0
        new = [step for step in order[: last + 1] if step not in self._reached]
        self._reached += new
        if self._live is not None:
            self._live.refresh()
            return
        for step in new:
            self._out.print(f"  {self._request}  {self._seconds()}  {step.value}: {STEPS[step]}")
        if done(view) and view.step not in STEPS:
            self._out.print(f"  {self._request}  {self._seconds()}  {view.state.value.lower()}")

    def remark(self, words: str) -> None:
        self._out.print(Text(f"  {words}", style="yellow"))

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._began:5.2f} s"

    def _drawn(self) -> Text:
        last = self._reached[-1] if self._reached else Step.QUEUED
        refused, arrived = self._state in OVER, last is Step.MIRRORED
        line = Text("  ")
        for step in STEPS:
            if step in self._reached:
                line.append("✔ ", "green").append(f"{step.value} ")
            elif not refused:
                line.append(f"· {step.value} ", "dim")
        if refused and self._state is not None:
            line.append("✘ ", "red").append(self._state.value.lower() + " ")
        line.append(self._seconds().strip(), "bold" if refused or arrived else "")
        asked = Text(f"  {self._request}  ", "dim")
        asked.append("" if refused else STEPS[last])
        return Text("\n").join([asked, line])
