"""The table: every operation of the broker, noun by noun."""

from broker.web.routes import access, agents, burst, clusters, itself, leases, offers, requests
from broker.web.routing import Route

ROUTES: tuple[Route, ...] = (
    *requests.ROUTES,
    *offers.ROUTES,
    *leases.ROUTES,
    *clusters.ROUTES,
    *burst.ROUTES,
    *access.ROUTES,
    *agents.ROUTES,
    *itself.ROUTES,
)
