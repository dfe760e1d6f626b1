"""What the tour asks for: one that works, one that is short, one that can't be."""

from dataclasses import dataclass

from broker.kit.durations import format_duration
from broker.kit.money import from_micros
from broker.wire.offers import OfferView
from broker.wire.requests import CapacityRequest

SHORT_S = 3
"""Of the lease that expires: long enough to be seen."""


@dataclass(frozen=True)
class Wishes:
    """The three requests of a tour."""

    main: CapacityRequest
    short: CapacityRequest
    impossible: CapacityRequest


def simulated() -> Wishes:
    """For the demo's own three clusters."""
    return Wishes(
        main=CapacityRequest.model_validate(
            {
                "cluster": "cirrus",
                "devices": {
                    "count": 8,
                    "driver": "gpu.nvidia.com",
                    "selector": "device.attributes['gpu.nvidia.com'].productName.contains('H100') && "
                    "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('80G')) >= 0",
                },
                "duration": "2h",
                "price_cap": {"amount": "2.80"},
                "where": {"regions": ["eu-north-1", "eu-west-1"]},
            }
        ),
        short=CapacityRequest.model_validate(
            {
                "cluster": "aurora",
                "devices": {"count": 4, "driver": "tpu.google.com"},
                "duration": "3s",
                "price_cap": {"amount": "1.50"},
            }
        ),
        impossible=CapacityRequest.model_validate(
            {
                "cluster": "cirrus",
                "devices": {"count": 12, "driver": "gpu.nvidia.com"},
                "duration": "2h",
                "price_cap": {"amount": "2.00"},
            }
        ),
    )


def real(*, borrower: str, offer: OfferView, most: int) -> Wishes:
    """For clusters we know nothing about: some of what is on offer, under its own terms."""
    whole = max(offer.unit, min(most, offer.devices) // offer.unit * offer.unit)
    shortest = max(offer.terms.min_duration, SHORT_S)
    hour = min(3_600, offer.terms.max_duration)
    where = {"driver": offer.kind.driver}
    price = str(from_micros(offer.price.micros))
    return Wishes(
        main=_plain(borrower, {"count": whole, **where}, hour, price),
        short=_plain(borrower, {"count": offer.unit, **where}, shortest, price),
        impossible=_plain(borrower, {"count": offer.devices + offer.unit, **where}, hour, price),
    )


def _plain(cluster: str, devices: dict[str, object], seconds: int, price: str) -> CapacityRequest:
    return CapacityRequest.model_validate(
        {
            "cluster": cluster,
            "devices": devices,
            "duration": format_duration(seconds),
            "price_cap": {"amount": price},
        }
    )
