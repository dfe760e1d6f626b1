"""A placement problem as a person writes it, and its answer as a person reads it.

``text`` reads YAML or JSON, ``document`` says what may stand there, ``mistakes`` what is wrong with it, ``building``
makes the optimizer's problem of it. ``answer`` is the solution for programs, ``tables`` and ``plot`` for people.
"""
