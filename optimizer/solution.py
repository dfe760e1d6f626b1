"""The answer: placements, refusals with their reasons as data, and how good the plan is at the worst.

No sentence is stored here; ``explain`` turns these values into words for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum


class Why(IntFlag):
    """Why a group is no answer to an ask; several may hold at once. The value 0 means it is one."""

    OWN_CLUSTER = 1 << 0
    """The borrower's own cluster."""
    SELECTOR = 1 << 1
    """Its devices do not satisfy the request's selectors."""
    AVOIDED = 1 << 2
    """It already failed this request."""
    TENANT = 1 << 3
    """The lender does not admit the tenant."""
    CLUSTER = 1 << 4
    REGION = 1 << 5
    PROVIDER = 1 << 6
    CONFIDENTIAL = 1 << 7
    """Required confidential, and it does not declare that."""
    TOO_LONG = 1 << 8
    """The lender does not lend for so long."""
    TOO_SHORT = 1 << 9
    """The lender does not lend for so short."""
    TIER = 1 << 10
    """No tier of the burst policy admits it."""
    TIER_PRICE = 1 << 11
    """Above the price cap of its tier."""
    PRICE_CAP = 1 << 12
    """Above the request's cap per device-hour."""
    TOTAL_CAP = 1 << 13
    """Above the request's cap for the whole."""
    COUNT = 1 << 14
    """It has fewer free devices than asked."""
    NODE = 1 << 15
    """No single node of it has that many free."""
    SHARED = 1 << 16
    """A capacity it shares with other groups is too small, even alone."""
    BUDGET = 1 << 17
    """A budget of the request cannot hold its worst case, even alone."""
    QUOTA = 1 << 18
    """A quota of the request cannot hold its devices, even alone."""
    VALUE = 1 << 19
    """It costs more than the request is worth (aim: welfare)."""
    JURISDICTION = 1 << 20
    INTERRUPTIBLE = 1 << 21
    """Its lender may reclaim before the request is over, which it refuses."""
    WINDOW = 1 << 22
    """No start lies in the request's window that lets it end by its deadline."""
    PINNED = 1 << 23
    """A running lease that must not be moved is elsewhere."""


class Lost(StrEnum):
    """Why an eligible group was not the one chosen."""

    TAKEN = "taken"
    """Other requests of this plan take what it would need."""
    LATER_TIER = "later tier"
    MOVE = "would have to move"
    """A running lease stays where it is: moving costs more than it gains."""
    NOT_CONFIDENTIAL = "not confidential"
    COSTLIER = "costlier"
    LOOSER = "looser fit"
    """Same cost; it would leave more of a larger group in pieces."""
    OTHERS = "better for others"
    """Better or equal for this request alone, but the plan as a whole is better without it."""
    INELIGIBLE = "ineligible"


class Status(StrEnum):
    OPTIMAL = "optimal"
    """No plan is better; proved."""
    FEASIBLE = "feasible"
    """Checked and valid; at most ``gap`` from the best."""


class Limit(StrEnum):
    """What sort of limit a row is."""

    GROUP = "group"
    NODE = "node"
    SHARED = "shared"
    BUDGET = "budget"
    QUOTA = "quota"


class Field(StrEnum):
    """Which part of a request a change touches."""

    PRICE_CAP = "price cap"
    TOTAL_CAP = "total cap"
    TIER_CAP = "tier cap"
    DEVICES = "devices"
    """Of each worker."""
    WORKERS = "workers"
    DURATION = "duration"
    REGION = "region"
    PROVIDER = "provider"
    CLUSTER = "cluster"
    CONFIDENTIAL = "confidential"
    SAME_NODE = "same node"
    BUDGET = "budget"
    QUOTA = "quota"
    JURISDICTION = "jurisdiction"
    UNINTERRUPTED = "uninterrupted"
    START_BY = "start by"
    END_BY = "end by"
    SPLIT = "split"


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """One group that was looked at for an ask and was not chosen."""

    group: str
    price_micros: int
    """µUSD per requested device-hour, all-in, whole units and transfer included."""
    cost_micros: int
    tier: int | None
    """Rank of its tier, from 0; None where no tier admits it."""
    lost: Lost
    why: Why
    """The predicates that removed it; 0 where it was eligible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one group gives to a placement."""

    group: str
    workers: int
    units: int
    devices: int
    """Devices lent and paid: units × devices per unit."""
    cost_micros: int
    """Worst case: price × devices × duration for each worker, rounded up, and transfer."""
    nodes: tuple[tuple[int, int], ...] = ()
    """(index into ``Group.per_node``, units) where the group says what its nodes hold; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where an ask goes, from when to when."""

    parts: tuple[Part, ...]
    """One, unless the request may be split."""
    price_micros: int
    """µUSD per requested device-hour, rounded up, whole units and transfer included."""
    start_s: int = 0
    """Seconds from now; one of the problem's starts."""
    duration_s: int
    """In the form it takes there: shorter on faster devices."""
    form: int = 0
    """0 is the ask's own, 1 the first of its ``forms``."""
    tier: int = 0
    """The latest tier among its parts."""
    loss_micros: int = 0
    """What counts beside the cost and is not paid: expected reclaims, waiting, a move; at most a billion dollars."""
    moved: bool = False
    """A running lease that leaves where it is."""
    considered: tuple[Alternative, ...] = ()
    """The other groups, eligible ones first, then by price; at most ``solve``'s ``alternatives`` of them."""
    removed: Mapping[Why, int] = field(default_factory=dict)
    """Single predicate → how many groups it removed."""

    @property
    def group(self) -> str:
        """Of the only, or the first, part."""
        return self.parts[0].group

    @property
    def nodes(self) -> tuple[tuple[int, int], ...]:
        """Of the only, or the first, part."""
        return self.parts[0].nodes

    @property
    def units(self) -> int:
        return sum(part.units for part in self.parts)

    @property
    def devices(self) -> int:
        """Devices lent and paid."""
        return sum(part.devices for part in self.parts)

    @property
    def cost_micros(self) -> int:
        """Worst case of all parts."""
        return sum(part.cost_micros for part in self.parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """A limit that stands in the way of an ask which something could otherwise serve."""

    limit: Limit
    id: str
    short_by: int
    """Units, devices or µUSD missing at the least, given the plan for the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """The smallest change of one field that would place the ask beside the plan, checked by applying it."""

    field: Field
    to: int | str | bool
    """The new cap (µUSD), count, seconds, place to allow, or False for a wish to be dropped. A budget or quota: how
    much more is needed."""
    id: str = ""
    """Of the budget, quota or tier it is about."""
    group: str
    """Where the ask would go."""
    cost_micros: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why an ask is not placed, and what would have to change."""

    groups: int
    """How many were looked at."""
    eligible: int
    """How many passed every predicate alone; what stands in their way is ``binding``."""
    removed: Mapping[Why, int]
    """Single predicate → how many groups it removed, alone or with others."""
    only: Mapping[Why, int]
    """Single predicate → how many groups it alone removed: what lifting it would bring back."""
    binding: tuple[Binding, ...]
    changes: tuple[Change, ...]
    detailed: bool = True
    """Whether ``binding`` and ``changes`` were looked for; ``solve`` does so for the first ``details`` requests."""
    outbid_micros: int | None = None
    """µUSD by which its best choice misses the clearing prices; None where it has none, or there are no prices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Idle:
    """Why an offer is not used, or not all of it."""

    free: int
    """Units nobody takes now."""
    asks: int
    """How many requests looked at it."""
    eligible: int
    """How many it would suit."""
    removed: Mapping[Why, int]
    """Single predicate → how many requests it removed."""
    cut_micros: int | None = None
    """µUSD per device-hour below its price at which an unplaced request would take it; None where no price would do
    or there are no prices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantShare:
    """How much one tenant gets."""

    guaranteed: int
    devices: int
    """Lent to it by this plan, running leases included."""
    entitled: int
    """Devices of its requests that its guarantee covers; see ``fairness.entitled``."""
    entitled_placed: int
    dominant: float
    """The largest share of all devices of one kind that it holds (DRF), 0 to 1."""
    weighted: float
    """The dominant share by weight; the mean weight counts as 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Envy:
    """A tenant that could use more of what another holds, weight for weight, than of what it holds itself."""

    tenant: str
    of: str
    devices: int
    """How many more devices it could use, rounded down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fairness:
    """How the plan treats tenants."""

    tenants: Mapping[str, TenantShare]
    least: float
    """Lowest weighted dominant share among tenants that ask for something they could have."""
    most: float
    envy: tuple[Envy, ...]
    """The largest first."""


class Proof(StrEnum):
    """What a bound was proved by; whichever it is, it holds for the whole problem."""

    ALONE = "each request alone"
    """No request can add more than its best choice does if it were the only one."""
    PRICES = "prices"
    """Lagrangian duality at the clearing prices."""
    PACKING = "packing"
    """Prices on everything but groups, which are packed one by one."""
    KNAPSACKS = "knapsacks"
    """Prices on groups; what shares budgets is solved exactly."""
    MIXED = "mixed-integer"
    """HiGHS, loosened by more than its tolerance."""
    EXACT = "exact"
    """CP-SAT in whole numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """One line of the lexicographic objective: what was reached and what no plan can pass.

    ``bound`` holds for plans as good as this one in all goals before it.
    """

    name: str
    maximise: bool
    reached: int
    bound: int
    proof: Proof = Proof.ALONE

    @property
    def gap(self) -> float:
        """Relative distance to the bound; 0.0 is proved best."""
        return abs(self.bound - self.reached) / max(1, abs(self.bound), abs(self.reached))


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A plan that passed the independent checker, with its quality."""

    status: Status
    placements: Mapping[str, Placement]
    unplaced: Mapping[str, Refusal]
    goals: tuple[Goal, ...]
    """In order of importance."""
    cost_micros: int
    prices: Mapping[tuple[Limit, str], float]
    """Clearing prices: µUSD per unit of a group, per µUSD of a budget, per device of a quota; those not named are 0.
    Known where the aim is welfare, unless there was nothing to choose or to dispute."""
    unused: Mapping[str, Idle] = field(default_factory=dict)
    """Group → why some of it is left; for groups with units that nobody takes now."""
    ended: tuple[str, ...] = ()
    """Running leases that the plan ends; their reasons are among ``unplaced``."""
    fairness: Fairness | None = None
    """Where the problem names shares."""
    wall_s: float
    stats: Mapping[str, float | int | str]

    @property
    def _weakest(self) -> Goal:
        return next((goal for goal in self.goals if goal.gap > 0), self.goals[-1])

    @property
    def objective(self) -> int:
        """Of the most important goal that is not proved best, or of the last one where all are."""
        return self._weakest.reached

    @property
    def bound(self) -> int:
        return self._weakest.bound

    @property
    def gap(self) -> float:
        """Relative; 0.0 where the whole plan is proved optimal."""
        return self._weakest.gap
