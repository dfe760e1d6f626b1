"""Real nodes for the tests: kubelet, containerd, runc and a DRA driver beside a control plane, with nothing left after.

`node.py` is the door: `RealNode` joins one node to a running control plane. The README of this directory says what a
machine must have, and what a node does and does not touch.
"""
