"""The truth about devices: which are free, what they are, and whether claims can be satisfied by them.

A pure library over raw Kubernetes objects: no I/O, no clock, nothing of ours but itself. ``docs/devices.md`` says what
it promises and how that is shown; read ``model`` first, then ``allocator`` for claims or ``inventory`` for devices.
"""
