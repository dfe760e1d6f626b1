"""Offers as borrowers see them: what a lender advertised, less what live leases hold."""

from __future__ import annotations

from broker.domain.access import READ, Principal
from broker.domain.errors import NotFound
from broker.service import views
from broker.service.answers import Page
from broker.service.core import Core, page_limit, read_cursor
from broker.service.market import Shown, Snapshot
from broker.wire.offers import OfferView


class Offers(Core):
    async def offers(
        self,
        p: Principal,
        *,
        model: str | None = None,
        region: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[OfferView]:
        """Those open to the tenant; ``model`` matches part of the name, without regard to case."""
        p.require(READ)
        after, most = read_cursor(cursor) or "", page_limit(limit)
        seen = self.feed.last  # before the look: whoever watches from here misses nothing
        snapshot = await self.snapshot()
        names = sorted(
            name
            for name, shown in snapshot.shown.items()
            if name > after
            and self._open_to(p, shown)
            and (model is None or model.lower() in shown.offer.kind.model.lower())
            and (region is None or shown.offer.place.region == region)
        )
        return self._page(
            names[: most + 1],
            seen=seen,
            limit=most,
            key=lambda name: name,
            view=lambda name: views.offer_view(snapshot.shown[name], snapshot),
        )

    async def offer(self, p: Principal, offer_id: str) -> OfferView:
        p.require(READ)
        snapshot = await self.snapshot()
        shown = snapshot.shown.get(offer_id)
        if shown is None or not self._open_to(p, shown):
            raise NotFound("offer", offer_id)
        return views.offer_view(shown, snapshot)

    async def snapshot(self) -> Snapshot:
        """The market now."""
        return await self.store.read(lambda unit: self.market.look(unit, now=self.now()))

    def _open_to(self, p: Principal, shown: Shown) -> bool:
        allowed = shown.lot.allowed_tenants
        return p.admin or allowed is None or p.tenant in allowed or p.tenant == shown.lot.tenant
