"""When a request may start: not before one time, by another, and so that it ends by a third.

What counts as the start is the moment at which the broker grants the devices; that the lender then holds them, which
takes seconds, is not foreseen here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.kit.durations import format_duration


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Between which moments something that lasts ``duration_s`` may start; None is no limit."""

    duration_s: int
    not_before: datetime | None = None
    start_by: datetime | None = None
    finish_by: datetime | None = None

    @property
    def latest(self) -> datetime | None:
        """The last moment to start."""
        ends = None if self.finish_by is None else self.finish_by - timedelta(seconds=self.duration_s)
        known = [each for each in (self.start_by, ends) if each is not None]
        return min(known) if known else None

    @property
    def bounded(self) -> bool:
        """Whether it says anything at all."""
        return any(each is not None for each in (self.not_before, self.start_by, self.finish_by))

    def begins(self, now: datetime) -> datetime:
        """The first moment from ``now`` on."""
        return now if self.not_before is None else max(now, self.not_before)

    def early(self, now: datetime) -> bool:
        return self.not_before is not None and now < self.not_before

    def over(self, now: datetime) -> bool:
        return self.latest is not None and now > self.latest

    def until(self, now: datetime, wait: timedelta | None) -> datetime:
        """How long to keep trying. Who names a latest start and no ``wait`` means until then."""
        if self.latest is not None and wait is None:
            return self.latest
        end = self.begins(now) + (wait or timedelta(0))
        return end if self.latest is None else min(end, self.latest)

    def mistake(self, now: datetime) -> tuple[str, str, str] | None:
        """What is wrong with asking for it now: (field, in a few words, in a sentence with what would do)."""
        begins = self.begins(now)
        if self.start_by is not None and self.start_by < begins:
            if self.not_before is not None and self.not_before == begins:
                return "start_by", "is before not_before", f"start_by is {told(self.start_by)}, before not_before."
            return "start_by", "has passed", f"start_by {told(self.start_by)} has passed; now it is {told(now)}."
        ends = begins + timedelta(seconds=self.duration_s)
        if self.finish_by is None or ends <= self.finish_by:
            return None
        rounded = ends if ends.microsecond == 0 else ends.replace(microsecond=0) + timedelta(seconds=1)
        left = int((self.finish_by - begins).total_seconds())
        shorter = f", or with a duration of {format_duration(left)} at most" if left > 0 else ""
        return (
            "finish_by",
            "has passed" if self.finish_by < now else "is too early for the duration",
            f"What starts at {told(begins)} at the earliest and takes {format_duration(self.duration_s)} "
            f"can't finish by {told(self.finish_by)}. It could with finish_by {told(rounded)} or later{shorter}.",
        )

    def terms(self) -> str:
        """What it wants, in words: ``a start by 14:00``."""
        wishes = [f"not before {told(self.not_before)}"] if self.not_before is not None else []
        if self.start_by is not None:
            wishes.append(f"by {told(self.start_by)}")
        start = f"a start {' and '.join(wishes)}" if wishes else ""
        finish = f"an end by {told(self.finish_by)}" if self.finish_by is not None else ""
        return " and ".join(filter(None, (start, finish)))


def told(at: datetime) -> str:
    """A time as messages have it."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
