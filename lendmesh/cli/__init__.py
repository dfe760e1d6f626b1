"""``lendmesh``: one command; its verbs are what people do.

Exit codes: 0 done; 1 the answer is no (refused, not verified, not conformant); 2 the command was used wrongly; 3 the
broker can't be reached. What the broker refuses is printed as its own sentence.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

OK, NO, MISUSED, AWAY = 0, 1, 2, 3


class Failed(Exception):
    """The command can't go on; its text says why and what to do."""

    def __init__(self, text: str, *, code: int = NO) -> None:
        super().__init__(text)
        self.code = code


def main(argv: list[str] | None = None) -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command; returns its exit code."""
    from lendmesh.cli.parser import build

    parser = build()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "run"):
        (arguments.group if hasattr(arguments, "group") else parser).print_help()
        return MISUSED
    return _guarded(arguments.run, arguments)


def _guarded(command: Callable[[argparse.Namespace], Awaitable[int] | int], arguments: argparse.Namespace) -> int:
    from lendmesh.client import BadCA, Refused, Unreachable
    from lendmesh.context import NoContext

    try:
        result = command(arguments)
        return asyncio.run(_awaited(result)) if not isinstance(result, int) else result
    except Failed as failure:
        print(f"lendmesh: {failure}", file=sys.stderr)
        return failure.code
    except (NoContext, BadCA) as missing:
        print(f"lendmesh: {missing}", file=sys.stderr)
        return MISUSED
    except Unreachable as away:
        print(f"lendmesh: {away}", file=sys.stderr)
        return AWAY
    except Refused as refused:
        _print_refusal(refused)
        return NO
    except (KeyboardInterrupt, BrokenPipeError):
        return 130


async def _awaited(result: Awaitable[int]) -> int:
    return await result


def _print_refusal(refused: "Exception") -> None:
    from broker.wire.requests import Reason
    from lendmesh import because, show
    from lendmesh.client import Refused

    assert isinstance(refused, Refused)
    problem = refused.problem
    print(f"lendmesh: {problem.detail}", file=sys.stderr)
    if problem.status == 401:
        print("  Give yours with --token-file or LENDMESH_TOKEN, or say `lendmesh login` once.", file=sys.stderr)
    for error in problem.errors:
        if str(error.get("detail")) in str(problem.detail):
            continue
        print(f"  {error.get('pointer') or error.get('in') or '/'}: {error.get('detail')}", file=sys.stderr)
    if problem.reasons:
        because.reasons([Reason.model_validate(reason) for reason in problem.reasons], show.console(stderr=True))
