"""A simulated cluster: the few calls of Kubernetes that the agent makes, in memory, with the scheduler's rules.

Shipped code, not a mock: demos, simulations and scale tests run thousands of these in one process. ``store`` keeps the
objects and their history, ``rules`` and ``api`` are what an API server does with a request, ``controllers``,
``scheduler`` and ``kubelet`` react to changes, ``cluster`` puts them together, and ``kube`` is the ``Kube`` that an
agent holds in its hand, with the faults a network has. ``tests/test_kube_contract.py`` puts the same questions to this
and to a real control plane.

Left out: RBAC, admission policies and quotas; room for pods (cpu, memory, number) and preemption; binding conditions.
"""

from clusteragent.kube.sim.cluster import SimCluster
from clusteragent.kube.sim.kube import Call, Faults, SimKube

__all__ = ["Call", "Faults", "SimCluster", "SimKube"]
