"""An advert, from the bytes that were signed to what the store must be told of it.

A cluster says all it offers every few seconds, and nearly always that is what it said before, or differs in one offer
out of many. So the bytes of every offer that was found good are remembered by their hash; those that come again need
not be parsed again. That is a shortcut and nothing else: whoever asks for an offer gets it read from the advert at
hand, and the store alone knows what is on offer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pydantic import ValidationError

from broker.domain.errors import Malformed
from broker.domain.offer import Offer
from broker.kit.kept import Kept
from broker.service.messages import parsed
from broker.wire.offers import MAX_OFFERS, Advert, AdvertisedOffer

CLUSTERS = 10_000
"""Of so many the last advert is remembered: about 100 bytes for each offer."""
_OFFERS, _COUNTS, _NEXT = b'"offers":[', b'],"counts":{', b'},{"name":'
"""Where an advert as our agents write it comes apart; any other is read as one piece."""


@dataclass(frozen=True, slots=True)
class _Read:
    """One offer that was read from this advert."""

    offer: AdvertisedOffer
    body: str
    digest: str

    @classmethod
    def of(cls, offer: AdvertisedOffer) -> Self:
        """:raises Malformed: it names a device twice."""
        if len({(device.driver, device.pool, device.name) for device in offer.devices}) != len(offer.devices):
            raise Malformed(f"Offer {offer.name} names a device twice.")
        body = offer.model_dump_json()
        return cls(offer, body, hashlib.sha256(body.encode()).hexdigest())


class Said:
    """What one advert says: all but its offers as values, those by name and digest, and each in full when asked for."""

    def __init__(self, advert: Advert) -> None:
        self.advert = advert
        """Without its offers."""
        self.digests: dict[str, str] = {}
        """Offer → what tells it from any other."""
        self._offers: dict[str, _Read | bytes] = {}

    def add(self, name: str, digest: str, offer: _Read | bytes) -> None:
        """:raises Malformed: it names one twice."""
        if name in self.digests:
            raise Malformed(f"The advert has two offers named {name}.")
        self.digests[name], self._offers[name] = digest, offer

    def row(self, name: str, now: datetime) -> Offer:
        """One offer as it is kept, without the id that only the store knows."""
        read = self._offer(name)
        return Offer(
            id="",
            cluster="",
            name=name,
            digest=read.digest,
            body=read.body,
            model=read.offer.kind.model,
            region=read.offer.place.region,
            devices=len(read.offer.devices),
            updated_at=now,
        )

    def refs(self, cluster: str) -> set[str]:
        """All devices on offer."""
        return {device.ref(cluster) for name in self._offers for device in self._offer(name).offer.devices}

    def _offer(self, name: str) -> _Read:
        found = self._offers[name]
        return found if isinstance(found, _Read) else _Read.of(AdvertisedOffer.model_validate_json(found))


class Adverts:
    """Reads adverts, and remembers of each cluster what the last one said. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: Kept[str, Mapping[bytes, tuple[str, str]]] = Kept(CLUSTERS)
        """Cluster → hash of an offer's bytes → its name and digest."""

    def read(self, payload: bytes, *, cluster: str) -> Said:
        """What the advert says, ``cluster`` being whose signature it bears.

        :raises Malformed: that can't be told.
        """
        known = self._known.get(cluster) or {}
        heard: dict[bytes, tuple[str, str]] = {}
        try:
            advert, texts = _pieces(payload)
            said = Said(advert)
            for text in texts:
                key = hashlib.sha256(text).digest()
                if key in known:
                    name, digest = known[key]
                    said.add(name, digest, text)
                else:
                    read = _Read.of(AdvertisedOffer.model_validate_json(text))
                    name, digest = read.offer.name, read.digest
                    said.add(name, digest, read)
                heard[key] = name, digest
        except (ValidationError, RecursionError, _OnePiece):
            return _whole(payload)
        self._known.keep(cluster, heard)
        return said


class _OnePiece(Exception):
    """It doesn't come apart where ours do."""


def _pieces(payload: bytes) -> tuple[Advert, list[bytes]]:
    """The advert without its offers, and the bytes of each of these.

    Where it is cut is a guess, and proved right by what is done with the pieces: each offer's is a whole JSON object
    (it is parsed, or was before), and so is the rest, with an empty list where the offers were. Put together again they
    can then mean nothing else.
    """
    head, begins, more = payload.partition(_OFFERS)
    array, ends, tail = more.rpartition(_COUNTS)
    if not begins or not ends:
        raise _OnePiece
    advert = Advert.model_validate_json(head + begins + ends + tail)
    first, *others = array.split(_NEXT)
    if advert.offers or len(others) >= MAX_OFFERS:
        raise _OnePiece  # named twice, and the other time counts; or more than there may be, which is to be told
    if not array:
        return advert, []
    begun = [first, *(_NEXT[2:] + text for text in others)]
    return advert, [*(text + _NEXT[:1] for text in begun[:-1]), begun[-1]]


def _whole(payload: bytes) -> Said:
    advert = parsed(payload, Advert)
    said = Said(advert.model_copy(update={"offers": ()}))
    for read in map(_Read.of, advert.offers):
        said.add(read.offer.name, read.digest, read)
    return said
