"""What the tour asks for: one that works, one that is short, one that can't be."""

from dataclasses import dataclass

from broker.wire.requests import CapacityRequest


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


def real(*, borrower: str, count: int, price: str) -> Wishes:
    """For clusters we know nothing about: whatever is on offer, as much of it as one offer has."""
    return Wishes(
        main=_plain(borrower, count, "1h", price),
        short=_plain(borrower, 1, "60s", price),
        impossible=_plain(borrower, 1_024, "1h", "0.01"),
    )


def _plain(cluster: str, count: int, duration: str, price: str) -> CapacityRequest:
    return CapacityRequest.model_validate(
        {"cluster": cluster, "devices": {"count": count}, "duration": duration, "price_cap": {"amount": price}}
    )
