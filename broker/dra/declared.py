"""What a node's labels declare: where it is, who runs it, what it is wired to, whether it computes confidentially.

No DRA attribute says any of this (NVIDIA publishes no confidential mode), so labels are joined onto devices. A label is
a claim by whoever runs the cluster, never a proof: it is passed on as *declared*, and attestation has to follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PROVIDERS = {
    "eks.amazonaws.com/": "aws",
    "cloud.google.com/gke-": "gcp",
    "kubernetes.azure.com/": "azure",
    "doks.digitalocean.com/": "digitalocean",
    "oci.oraclecloud.com/": "oci",
    "node.coreweave.com/": "coreweave",
    "nebius.com/": "nebius",
}
_SCHEMES = {"gce": "gcp", "aws": "aws", "azure": "azure", "digitalocean": "digitalocean", "ocid1": "oci"}


@dataclass(frozen=True, slots=True)
class Declared:
    """Empty text where nothing is declared; ``tee`` and ``gpu_confidential`` in the words of the wire models."""

    region: str = ""
    zone: str = ""
    provider: str = ""
    tee: str = "none"  # "sev-snp", "tdx" or "none"
    gpu_confidential: str = "off"  # "on", "ppcie", "devtools" or "off"
    nvlink_domain: str = ""
    """Nodes of one NVLink domain reach each other's memory (``nvidia.com/gpu.clique``: cluster uuid and clique)."""
    conformance: str = ""
    """What the owner says the platform conforms to (``lendmesh.dev/conformance``, e.g. ``k8s-ai-1.36``)."""

    def attributes(self) -> dict[str, dict[str, str]]:
        """What a request's selector may ask for, in the form of resource.k8s.io/v1 under our own domain."""
        found = {"nvlinkDomain": self.nvlink_domain, "conformance": self.conformance}
        return {f"lendmesh.dev/{name}": {"string": value[:64]} for name, value in found.items() if value}


def declared(labels: Mapping[str, str], *, provider_id: str = "") -> Declared:
    """Read a node's labels (and ``spec.providerID``).

    The GPU's mode counts as the node's manager observes it (``cc.mode.state``), and on or ppcie only while it also says
    that the node is ready for confidential work (``cc.ready.state``).
    """
    mode = labels.get("nvidia.com/cc.mode.state", "off")
    if mode in ("on", "ppcie") and labels.get("nvidia.com/cc.ready.state") != "true":
        mode = "off"
    return Declared(
        region=labels.get("topology.kubernetes.io/region", ""),
        zone=labels.get("topology.kubernetes.io/zone", ""),
        provider=_provider(labels, provider_id),
        tee=_tee(labels),
        gpu_confidential=mode if mode in ("on", "ppcie", "devtools") else "off",
        nvlink_domain=labels.get("nvidia.com/gpu.clique", ""),
        conformance=labels.get("lendmesh.dev/conformance", ""),
    )


def _tee(labels: Mapping[str, str]) -> str:
    if labels.get("amd.feature.node.kubernetes.io/snp") == "true":
        return "sev-snp"
    return "tdx" if labels.get("intel.feature.node.kubernetes.io/tdx") == "true" else "none"


def _provider(labels: Mapping[str, str], provider_id: str) -> str:
    scheme = provider_id.partition(":")[0].partition(".")[0]
    if scheme in _SCHEMES:
        return _SCHEMES[scheme]
    for prefix, provider in _PROVIDERS.items():
        if any(label.startswith(prefix) for label in labels):
            return provider
    return ""
