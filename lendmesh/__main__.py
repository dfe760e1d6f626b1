"""``python -m lendmesh``: the same as the command."""

from lendmesh.cli import main

main()
