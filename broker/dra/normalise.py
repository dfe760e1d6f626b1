"""The door: raw Kubernetes objects in, the nouns of ``model.py`` out.

Three API versions come through it. v1 and v1beta2 have the same fields; v1beta1 puts a device's body under ``basic``
and a request's body flat into the request (KEP-4381). A ResourceSlice that says which pool it belongs to and is
otherwise unreadable still becomes a ``Slice``, with a problem: its pool must then offer nothing, which only works if
the pool hears of it. Anything else that is unreadable raises ``Malformed``. Nothing here trusts a size.
"""

from broker.dra.reading import Malformed
from broker.dra.reading_claims import read_allocation, read_claim, read_class, read_holding
from broker.dra.reading_slices import read_attributes, read_node, read_slice, read_taint_rule, read_view

__all__ = [
    "Malformed",
    "read_allocation",
    "read_attributes",
    "read_claim",
    "read_class",
    "read_holding",
    "read_node",
    "read_slice",
    "read_taint_rule",
    "read_view",
]
