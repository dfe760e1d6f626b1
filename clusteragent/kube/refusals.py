"""From an answer of the API server to the error it means. The one place that knows its statuses."""

import json

from clusteragent.kube.interface import AlreadyExists, Conflict, Forbidden, Gone, Invalid, KubeError, NotFound

_FAMILIES: dict[int, type[KubeError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}


def refusal(status: int, body: bytes) -> KubeError:
    """The error for an answer of ``status`` with ``body``.

    Only a Status object (meta/v1) is quoted; any other body may be a proxy's or a webhook's, and is dropped.
    """
    reason, message = "", f"HTTP {status}"
    try:
        told = json.loads(body)
        if told["kind"] == "Status":
            reason, message = str(told.get("reason") or ""), str(told.get("message") or message)
    except (ValueError, KeyError, TypeError):
        pass
    family = _FAMILIES.get(status, KubeError)
    if family is Conflict and reason == "AlreadyExists":
        family = AlreadyExists
    return family(status, reason, message)
