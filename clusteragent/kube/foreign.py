"""What a kubeconfig from somewhere else may say: where, with which CA, and with which token or certificate.

A kubeconfig can name programs to run, files to read and send, and proxies to go through. The local user's own may; one
that a lender has sent may not, whatever else is in it.
"""

from typing import Any

_CLUSTER = {"server", "certificate-authority-data", "tls-server-name"}
_USER = {"token", "client-certificate-data", "client-key-data"}


def only_data(config: Any) -> None:
    """Raise ``ValueError``, with a sentence, unless ``config`` names data only and speaks TLS with a known CA."""
    if not isinstance(config, dict):
        raise ValueError("it is no YAML mapping")
    for entry in _named(config, "clusters", "cluster"):
        _only(entry, _CLUSTER, "cluster")
        if not str(entry.get("server", "")).startswith("https://"):
            raise ValueError("its server is not an https address")
    for entry in _named(config, "users", "user"):
        _only(entry, _USER, "user")


def _named(config: dict[str, Any], many: str, one: str) -> list[dict[str, Any]]:
    entries = config.get(many)
    if not isinstance(entries, list):
        raise ValueError(f"its {many} are no list")
    bodies = [entry.get(one) if isinstance(entry, dict) else None for entry in entries]
    if not all(isinstance(body, dict) for body in bodies):
        raise ValueError(f"one of its {many} has no {one}")
    return [body for body in bodies if isinstance(body, dict)]


def _only(entry: dict[str, Any], allowed: set[str], where: str) -> None:
    if strange := sorted(set(entry) - allowed):
        raise ValueError(f"a {where} of it says {', '.join(strange)}, which is not taken from others")
