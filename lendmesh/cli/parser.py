"""Every verb, its options and its help. What a verb does stands in the module it names."""

import argparse
import importlib
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

EXAMPLE = """example:
  {prog} --cluster mine --count 8 --duration 2h --price-cap 2.80 \\
    --region eu-north-1 --selector "device.attributes['gpu.nvidia.com'].productName.contains('H100')"
"""


def build() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="lendmesh",
        description="Lend and borrow GPUs, MIG slices and TPUs between Kubernetes clusters.",
        epilog="Start with `lendmesh demo`. Every verb has a --help of its own.",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"lendmesh {version('lendmesh')}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    _borrowing(verbs)
    _looking(verbs)
    _devices(verbs)
    _solving(verbs)
    _running(verbs)
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Names and what they mean side by side; examples as they were written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


def _calls(module: str, function: str) -> Callable[[argparse.Namespace], Any]:
    def run(arguments: argparse.Namespace) -> Any:
        return getattr(importlib.import_module(module), function)(arguments)

    return run


def _verb(verbs: Any, name: str, help_: str, module: str, function: str, **more: Any) -> argparse.ArgumentParser:
    about = more.pop("about", f"{help_[:1].upper()}{help_[1:]}.")
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=help_, description=about, formatter_class=_Help, **more
    )
    parser.set_defaults(run=_calls(f"lendmesh.{module}", function))
    return parser


def _talks(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    about = parser.add_argument_group("which broker")
    about.add_argument("--url", help="the broker's URL (or LENDMESH_URL, or what `lendmesh login` saved)")
    about.add_argument("--token-file", metavar="FILE", help="a file with your token (or LENDMESH_TOKEN)")
    about.add_argument("--ca", metavar="FILE", help="the CA that signed the broker's certificate, PEM (or LENDMESH_CA)")
    return parser


def _prints(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "-o", "--output", choices=("table", "json", "yaml"), default="table", help="how to print (table)"
    )
    return parser


def _wish(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE.format(prog=parser.prog)
    parser.add_argument(
        "-f", "--file", metavar="FILE", help="the request as YAML or JSON (- for stdin); options override it"
    )
    parser.add_argument("--cluster", help="the cluster that borrows")
    parser.add_argument("--count", type=int, metavar="N", help="how many devices, for each worker: all of them or none")
    parser.add_argument("--workers", type=int, metavar="N", help="a gang of so many workers, placed together (1)")
    parser.add_argument("--selector", metavar="CEL", help="what each device must satisfy, as in a ResourceClaim")
    parser.add_argument("--driver", help="only devices of this DRA driver, e.g. gpu.nvidia.com")
    parser.add_argument("--same-node", action="store_true", default=None, help="the devices of each worker in one node")
    parser.add_argument("--duration", metavar="2h", help="how long: 90s, 15m, 2h, 1h30m, 7d")
    parser.add_argument("--price-cap", metavar="USD", help="the most to pay per device-hour, e.g. 2.80")
    parser.add_argument("--total-cap", metavar="USD", help="the most to pay for the whole")
    parser.add_argument("--region", action="append", metavar="R", help="an allowed region; may be repeated")
    parser.add_argument(
        "--jurisdiction", action="append", metavar="J", help="under whose law it may run (EU, DE); may be repeated"
    )
    parser.add_argument("--provider", action="append", metavar="P", help="an allowed provider; may be repeated")
    parser.add_argument(
        "--from", dest="lenders", action="append", metavar="CLUSTER", help="an allowed lender; may be repeated"
    )
    parser.add_argument(
        "--confidential", choices=("none", "prefer", "require"), help="confidential computing, as declared"
    )
    parser.add_argument(
        "--uninterrupted",
        dest="interruptible",
        action="store_false",
        default=None,
        help="only offers that the lender can't take back before the duration is over",
    )
    parser.add_argument("--data-region", metavar="R", help="where the data is that has to be brought along")
    parser.add_argument(
        "--data-gb", type=int, metavar="N", help="how much of it, in gigabytes; its way counts in the caps"
    )
    parser.add_argument("--priority", type=int, metavar="N", help="higher goes first (0)")
    parser.add_argument(
        "--wait", metavar="10m", help="keep trying this long when nothing fits at once (0s: answer now)"
    )
    for option, words in (
        ("--not-before", "don't start before this time"),
        ("--start-by", "start by then or not at all; keeps trying till then, unless --wait says less"),
        ("--finish-by", "the deadline: start in time to end by then, or not at all"),
    ):
        parser.add_argument(option, metavar="TIME", help=f"{words}, e.g. 2026-12-01T14:00:00Z")
    parser.add_argument("--policy", help="the burst policy whose budget pays")
    parser.add_argument(
        "--namespace", metavar="NS", help="where the remote claim goes in the borrower's cluster (default)"
    )


def _borrowing(verbs: Any) -> None:
    request = _prints(
        _talks(_verb(verbs, "request", "ask for devices and watch until they are yours", "cli.requests", "request"))
    )
    _wish(request)
    request.add_argument("--no-follow", action="store_true", help="don't watch; print the request's id and end")
    quote = _prints(
        _talks(
            _verb(
                verbs,
                "quote",
                "what it would cost, where, and why not elsewhere; nothing is held",
                "cli.requests",
                "quote",
            )
        )
    )
    _wish(quote)
    show = _prints(_talks(_verb(verbs, "requests", "requests and what became of them", "cli.requests", "requests")))
    show.add_argument("id", nargs="?", help="one request, with its placement and reasons")
    cancel = _talks(
        _verb(verbs, "cancel", "take a request back (its lease, if any, is returned)", "cli.requests", "cancel")
    )
    cancel.add_argument("id")

    lease = verbs.add_parser(
        "lease", help="one lease: show, verify, return, renew, reclaim, revoke, kubeconfig", formatter_class=_Help
    )
    lease.set_defaults(group=lease)
    deeds = lease.add_subparsers(title="verbs", metavar="VERB")
    _prints(
        _talks(_verb(deeds, "show", "a lease, its devices and its terms", "cli.leases", "show_lease"))
    ).add_argument("id")
    token = _talks(_verb(deeds, "token", "print the signed lease (JWS)", "cli.leases", "token"))
    token.add_argument("id")
    verify = _verb(
        deeds,
        "verify",
        "check a signed lease offline",
        "cli.leases",
        "verify",
        about="Check a signed lease with nothing but the key set: no network, no broker. "
        "Exit code 1 when it does not verify.",
    )
    verify.add_argument("file", metavar="FILE", help="the signed lease (- for stdin)")
    verify.add_argument(
        "--jwks", required=True, metavar="FILE", help="the broker's key set, from /.well-known/jwks.json"
    )
    verify.add_argument("--at", metavar="TIME", help="as of this time (RFC 3339) instead of now")
    _prints(verify)
    for name, help_ in (
        ("return", "give the devices back before the end"),
        ("renew", "ask for more time"),
        ("reclaim", "as the lender: take the devices back, under the signed terms"),
        ("revoke", "as an administrator: end the lease at once"),
    ):
        deed = _talks(_verb(deeds, name, help_, "cli.leases", f"{name}_lease"))
        deed.add_argument("id")
        if name == "renew":
            deed.add_argument("--duration", required=True, metavar="2h", help="counted from now")
        if name in ("reclaim", "revoke"):
            deed.add_argument("--reason", default="", help="said to the other side")
        if name in ("return", "reclaim", "revoke"):
            deed.add_argument("--follow", action="store_true", help="watch until the lease has ended")
    access = _verb(
        deeds,
        "kubeconfig",
        "print the kubeconfig that reaches the lease's namespace in the lender's cluster",
        "cli.leases",
        "kubeconfig",
        about="Reads the Secret that the agent of your own cluster wrote: the broker never sees this credential.",
    )
    access.add_argument("id")
    access.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="of your own (the borrower's) cluster; default: KUBECONFIG or ~/.kube/config",
    )
    access.add_argument("--namespace", default="default", help="where the remote claim is (default)")


def _looking(verbs: Any) -> None:
    offers = _prints(
        _talks(_verb(verbs, "offers", "what can be borrowed now, and for how much", "cli.looking", "offers"))
    )
    offers.add_argument("--model", help="only models that contain this")
    offers.add_argument("--region", help="only this region")
    leases = _prints(_talks(_verb(verbs, "leases", "your leases, as lender or borrower", "cli.looking", "leases")))
    leases.add_argument("--state", help="only this state, e.g. Active")
    _prints(_talks(_verb(verbs, "clusters", "the members of the federation", "cli.looking", "clusters")))
    watch = _talks(_verb(verbs, "watch", "changes as they happen", "cli.looking", "watch"))
    watch.add_argument("what", choices=("leases", "offers", "requests"))
    _prints(_talks(_verb(verbs, "whoami", "who the broker thinks you are", "cli.access", "whoami")))
    _talks(_verb(verbs, "keys", "print the public keys under which every lease verifies (JWKS)", "cli.access", "keys"))
    login = _talks(_verb(verbs, "login", "remember a broker, a token and a CA", "cli.access", "login"))
    login.epilog = "The token is kept in a file that only you can read."

    tokens = verbs.add_parser(
        "token", help="tokens of people and programs: create, list, revoke", formatter_class=_Help
    )
    tokens.set_defaults(group=tokens)
    deeds = tokens.add_subparsers(title="verbs", metavar="VERB")
    create = _prints(
        _talks(_verb(deeds, "create", "make a token; its secret is shown once", "cli.access", "create_token"))
    )
    create.add_argument("name")
    create.add_argument("--tenant", required=True)
    create.add_argument(
        "--scope", action="append", required=True, choices=("read", "request", "lend", "metrics", "admin")
    )
    create.add_argument("--lifetime", default="90d", metavar="90d")
    _prints(_talks(_verb(deeds, "list", "all tokens, without their secrets", "cli.access", "tokens")))
    _talks(_verb(deeds, "revoke", "end a token at once", "cli.access", "revoke_token")).add_argument("id")

    cluster = verbs.add_parser("cluster", help="a cluster's membership: join-token, remove", formatter_class=_Help)
    cluster.set_defaults(group=cluster)
    deeds = cluster.add_subparsers(title="verbs", metavar="VERB")
    join = _prints(
        _talks(
            _verb(
                deeds,
                "join-token",
                "make a one-use token with which a cluster's agent joins",
                "cli.access",
                "join_token",
            )
        )
    )
    join.add_argument("cluster")
    join.add_argument("--tenant", required=True)
    join.add_argument("--lifetime", default="1h", metavar="1h")
    _talks(_verb(deeds, "remove", "revoke a cluster's membership", "cli.access", "remove_cluster")).add_argument(
        "cluster"
    )

    policy = verbs.add_parser("policy", help="burst policies: list, show, apply, delete", formatter_class=_Help)
    policy.set_defaults(group=policy)
    deeds = policy.add_subparsers(title="verbs", metavar="VERB")
    _prints(_talks(_verb(deeds, "list", "burst policies and what they have spent", "cli.policies", "policies")))
    for name, help_ in (
        ("show", "one policy"),
        ("delete", "remove a policy made over the API"),
        ("apply", "make or change a policy"),
    ):
        deed = _prints(_talks(_verb(deeds, name, help_, "cli.policies", name)))
        deed.add_argument("cluster")
        deed.add_argument("name")
        if name == "apply":
            deed.add_argument(
                "-f", "--file", required=True, metavar="FILE", help="the policy's spec as YAML or JSON (- for stdin)"
            )


def _devices(verbs: Any) -> None:
    inventory = _prints(
        _verb(
            verbs,
            "inventory",
            "what is free in a cluster, what is not, and why not; needs no broker",
            "cli.devices",
            "inventory",
        )
    )
    inventory.add_argument("--kubeconfig", metavar="FILE", help="of the cluster; default: KUBECONFIG or ~/.kube/config")
    inventory.add_argument(
        "--state",
        choices=("free", "allocated", "tainted", "incomplete", "unusable", "stale"),
        help="only devices in this state",
    )
    conformance = _verb(
        verbs,
        "conformance",
        "play recorded cases of Kubernetes' allocator against ours",
        "cli.devices",
        "conformance",
        about="Plays recorded cases of Kubernetes' structured allocator against ours. The last line is `agree N/M`; "
        "the exit code is 0 only when all agree.",
    )
    conformance.add_argument("file", nargs="+", metavar="FILE", help="cases, .json or .json.gz")


def _solving(verbs: Any) -> None:
    solve = _verb(
        verbs,
        "solve",
        "place the requests of a file on its offers, and say how good the plan is; needs no broker",
        "cli.solve",
        "solve",
        about="Reads offers, requests and limits from a file and prints the best plan: what goes where, what does not "
        "and why not, and how far it may be from the best. Ctrl-C ends it with the best so far.",
        epilog="examples:\n  lendmesh solve --example > problem.yaml\n  lendmesh solve problem.yaml --plot problem.svg",
    )
    solve.add_argument("file", nargs="?", metavar="FILE", help="the problem as YAML or JSON (- for stdin)")
    solve.add_argument("--example", action="store_true", help="print a problem with comments, to begin with")
    solve.add_argument("--time", default="10s", metavar="10s", help="how long to look for better plans (10s)")
    solve.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other numbers may find other plans as good (0)"
    )
    solve.add_argument(
        "--workers", type=int, default=1, metavar="N", help="threads; more than one is not repeatable (1)"
    )
    solve.add_argument("--why", metavar="REQUEST", help="everything about one request instead of the tables")
    solve.add_argument("--plot", metavar="FILE.svg", help="draw supply and demand, prices and the gap over time")
    solve.add_argument("--save", metavar="FILE", help="write the answer as JSON to a file too")
    solve.add_argument(
        "-o", "--out", "--output", dest="output", choices=("table", "json", "yaml"), default="table",
        help="how to print (table)",
    )  # fmt: skip


def _running(verbs: Any) -> None:
    demo = _verb(
        verbs,
        "demo",
        "see the whole flow: broker, three clusters, a lease and its end",
        "demo",
        "command",
        about="Runs a broker (SQLite, TLS) and agents of three clusters in one process and walks through a loan. "
        "Without --kubeconfig the clusters are simulated; with it they are your own.",
    )
    demo.add_argument("--once", action="store_true", help="end after the tour instead of serving on")
    demo.add_argument(
        "--kubeconfig", action="append", default=[], metavar="FILE", help="a real cluster; repeat it, borrower first"
    )
    demo.add_argument(
        "--placeholder-image",
        metavar="IMAGE",
        help="on real clusters: what the pod that asks the scheduler runs, where registry.k8s.io/pause can't be pulled",
    )
    demo.add_argument("--port", type=int, default=0, help="the broker's port (any free one)")

    broker = verbs.add_parser("broker", help="run a broker: serve, migrate, openapi", formatter_class=_Help)
    broker.set_defaults(group=broker)
    deeds = broker.add_subparsers(title="verbs", metavar="VERB")
    serve = _verb(
        deeds,
        "serve",
        "run a broker",
        "cli.running",
        "serve",
        about="Runs a broker. Everything can be set by LENDMESH_BROKER_… variables; see docs/settings.md.",
    )
    migrate = _verb(deeds, "migrate", "bring the database's schema up to date", "cli.running", "migrate")
    for deed in (serve, migrate):
        deed.add_argument(
            "--data", metavar="DIR", help="where the embedded default keeps database, keys and certificates"
        )
        deed.add_argument("--file", metavar="FILE", help="settings as TOML")
        deed.add_argument("--database", metavar="URL", help="postgresql://… instead of the embedded SQLite")
    serve.add_argument("--host", help="the address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="the port to listen on (8443; 0: any)")
    _verb(deeds, "openapi", "print the OpenAPI document", "cli.running", "openapi")

    agent = verbs.add_parser("agent", help="run a cluster's agent", formatter_class=_Help)
    agent.set_defaults(group=agent)
    deeds = agent.add_subparsers(title="verbs", metavar="VERB")
    run = _verb(
        deeds,
        "run",
        "run the agent of one cluster",
        "cli.running",
        "agent",
        about="Runs the agent of one cluster. In a cluster everything comes from the chart; by hand, give these.",
    )
    run.add_argument("--cluster", help="the cluster's name in the federation")
    run.add_argument("--kubeconfig", metavar="FILE", help="of the cluster; in a pod its own account is used")
    run.add_argument("--broker", metavar="URL", help="the broker's URL")
    run.add_argument("--ca", metavar="FILE", help="the broker's CA, PEM; a join token pins it too")
    run.add_argument("--join-token-file", metavar="FILE", help="a file with the one-use token, for the first start")
    run.add_argument("--identity-file", metavar="FILE", help="keep credential and keys in this file, not in a Secret")
    run.add_argument("--namespace", metavar="NS", help="the agent's own namespace (lendmesh-system)")
