"""How a lease ends at the lender, whatever the cause; pure.

No more rights first, so that nothing new comes; then pods, gracefully; then claims, which is what frees the devices;
and only when nothing is left is it said, and the namespace deleted. Each step waits for the one before, however long it
takes: a pod that can't end keeps its devices, and nobody is told otherwise.
"""

from broker.wire.leases import LeaseBody
from clusteragent import holding
from clusteragent.actions import Action, Delete, LetGo, Merge, Plan, Rest
from clusteragent.cache import deleting, uid_of
from clusteragent.kube.interface import DEVICE_LEASES, NAMESPACES, PODS, ROLE_BINDINGS
from clusteragent.lender import Ending, Memory, Terms, View, report_of, say, told


def give_back(view: View, memory: Memory, ending: Ending, body: LeaseBody, terms: Terms) -> Plan:
    """The next step of an end; done when the namespace is gone and the broker wishes for nothing else."""
    namespace = holding.namespace_of(body.id)
    generation = view.wish.desired.generation if view.wish else 0
    if view.anything:
        going = _drain(view, memory, ending, namespace, terms)
        if ending.phase == "released" and view.wish is not None and not told(memory, "draining", "released"):
            going += say(memory, report_of(body, generation, "draining", memory, ending))
        if view.claims or view.pods:
            return Plan(tuple(going))
    actions: list[Action] = []
    if memory.owes_rest:
        actions.append(Rest(tuple(holding.ref(device) for device in body.devices)))
    actions += say(memory, report_of(body, generation, ending.phase, memory, ending))
    if view.standing_namespace and view.namespace is not None and uid_of(view.namespace) not in memory.deleted:
        actions.append(Delete(NAMESPACES, namespace, uid=uid_of(view.namespace)))
    wished = view.wish is not None and view.wish.desired.want != "gone"
    return Plan(tuple(actions), done=not actions and view.namespace is None and not wished)


def _drain(view: View, memory: Memory, ending: Ending, namespace: str, terms: Terms) -> list[Action]:
    """No more rights first; then pods, gracefully; then claims. Each waits for the one before."""
    actions: list[Action] = []
    if view.record is not None and view.record.phase != "Draining" and not view.record.deleting and view.claims:
        status = {"status": {"phase": "Draining", "message": ending.reason}}
        actions.append(Merge(DEVICE_LEASES, view.lease, namespace, status, status=True))
    if view.namespace is not None and "binding" not in memory.deleted:
        actions.append(Delete(ROLE_BINDINGS, holding.ACCOUNT, namespace))
    for name, pod in view.pods.items():
        if not deleting(pod) and uid_of(pod) not in memory.deleted:
            own = pod.get("spec", {}).get("terminationGracePeriodSeconds")
            grace = int(terms.drain if own is None else min(own, terms.drain))
            actions.append(Delete(PODS, name, namespace, uid_of(pod), grace_s=grace))
    if not view.pods:
        actions += [
            LetGo(namespace, name, uid_of(claim))
            for name, claim in view.claims.items()
            if uid_of(claim) not in memory.deleted
        ]
    return actions


def clear_away(view: View, memory: Memory, terms: Terms) -> Plan:
    """A namespace of ours that nobody can tell anything about: the agent died before it wrote a record, or somebody
    deleted the record. Nothing in it can have been lent by a signed lease that we still know, so it goes."""
    if view.wish is None and not view.heard:
        return Plan()
    namespace = holding.namespace_of(view.lease)
    ending = Ending("released", "nothing is known of this lease")
    actions = _drain(view, memory, ending, namespace, terms)
    if not view.claims and not view.pods:
        if view.standing_namespace and view.namespace is not None and uid_of(view.namespace) not in memory.deleted:
            return Plan((Delete(NAMESPACES, namespace, uid=uid_of(view.namespace)),))
        return Plan(done=view.namespace is None)
    return Plan(tuple(actions))
