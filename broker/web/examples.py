"""Examples for the document: one good body for every operation that takes one. A test feeds each to its model."""

from typing import Any

_REQUEST: dict[str, Any] = {
    "cluster": "team-a",
    "devices": {
        "count": 8,
        "selector": "device.attributes['gpu.nvidia.com'].productName == 'NVIDIA H100 80GB HBM3'",
        "same_node": True,
    },
    "duration": "4h",
    "price_cap": {"amount": "2.80"},
    "where": {"regions": ["eu-central", "eu-north"]},
    "wait": "15m",
    "workload": {"namespace": "training", "kind": "Job", "name": "finetune-7b"},
}

BODIES: dict[str, Any] = {
    "submit_request": _REQUEST,
    "quote": _REQUEST,
    "renew_lease": {"duration": "2h"},
    "reclaim_lease": {"reason": "our own training run starts at noon"},
    "revoke_lease": {"reason": "the borrower's account was closed"},
    "create_token": {"name": "ci", "tenant": "research", "scopes": ["read", "request"], "lifetime": "30d"},
    "create_join_token": {"cluster": "team-b", "tenant": "research", "lifetime": "1h"},
    "join": {
        "token": "lmj_2f1c9a7d5e3b48c6.9f86d081884c7d659a2feaa0c55ad015",
        "cluster": "team-b",
        "signing_key": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        "sealing_key": {"kty": "OKP", "crv": "X25519", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"},
        "version": "0.1.0",
    },
    "put_burst_policy": {
        "covers": {"namespaces": ["training"]},
        "after": "5m",
        "tiers": [
            {"name": "neighbours", "price_cap": {"amount": "2.00"}, "where": {"providers": ["on-prem"]}},
            {"name": "anywhere", "price_cap": {"amount": "3.50"}},
        ],
        "budget": {"amount": "5000"},
        "max_duration": "12h",
    },
    "put_reported_burst_policies": {
        "policies": {"overflow": {"tiers": [{"name": "anywhere", "price_cap": {"amount": "3.50"}}]}}
    },
}

ANSWERS: dict[str, Any] = {
    "get_me": {"subject": "token:tok-06f3k2", "tenant": "research", "scopes": ["read", "request"], "cluster": None},
    "healthy": {"status": "ok"},
}
