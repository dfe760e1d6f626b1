"""The broker as its web room and its chores know it: one object, one method per use case.

Every method loads, decides (in ``broker.domain``) and saves in one transaction, and answers with a wire model or
raises a refusal from ``broker.domain.errors``. The nouns live in their own modules; here they only meet.
"""

from broker.service.access import Access
from broker.service.burst import Burst
from broker.service.clusters import Clusters
from broker.service.leases import Leases
from broker.service.requests import Requests
from broker.service.timekeeping import Timekeeping
from broker.service.watch import Watch, Watched


class Broker(Access, Requests, Leases, Clusters, Watch, Burst, Timekeeping):
    """All use cases. Build it with a store and keys, ``await start()`` once, serve, ``await stop()``."""


__all__ = ["Broker", "Watched"]
