"""Which request gets which devices, and why not the others: numbers in, numbers out.

A reader starts at ``problem`` (what is asked and offered), then ``solution`` (what comes back), then ``solve`` (how).
This file imports nothing, so that reading a ``Problem`` never loads a solver.
"""
