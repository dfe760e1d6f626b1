"""The house: its arrows, its light rooms, and papers that say what is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lendmesh.cli.parser import build

ROOT = Path(__file__).resolve().parents[1]


def loaded_by(module: str) -> set[str]:
    """The top-level packages that importing a module brings in."""
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    )


def test_the_arrows_between_rooms_point_one_way() -> None:
    """The contracts of pyproject.toml, as `make lint` checks them."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("broker.wire.agents", {"sqlalchemy", "aiohttp", "ortools", "kubernetes_asyncio", "cel_expr_python"}),
        ("optimizer.problem", {"ortools", "pydantic", "broker"}),
        ("clusteragent.agent", {"sqlalchemy", "ortools", "alembic", "psycopg"}),
        ("broker.app", {"clusteragent", "kubernetes_asyncio"}),
        ("lendmesh.cli.parser", {"aiohttp", "sqlalchemy", "ortools", "kubernetes_asyncio", "rich"}),
    ],
)
def test_a_room_brings_only_what_it_needs(module: str, never: set[str]) -> None:
    assert not loaded_by(module) & never


def test_every_promise_names_tests_that_exist() -> None:
    """docs/promises.md: a promise without its test does not exist."""
    text = (ROOT / "docs" / "promises.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for row in [line for line in text.splitlines() if line.startswith("| ") and "promise |" not in line]:
        named = re.findall(r"`([^`]+)`", row.split("|")[2])
        assert named, row
        for name in named:
            assert (ROOT / name).is_file() if name.endswith(".py") else f"def {name}(" in code, name


def test_every_command_in_the_papers_exists() -> None:
    """README and docs name verbs and options that the command has."""
    papers = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for paper in papers:
        for line in re.findall(
            r"^(?:\$ )?lendmesh ([a-z][^\n#&|>]*)", paper.read_text().replace("\\\n", " "), re.MULTILINE
        ):
            words = [word for word in line.split() if re.fullmatch(r"--?[a-z-]+|[a-z-]+", word)]
            verb = words[0]
            assert any(verb in (action.choices or {}) for action in build()._actions), f"{paper.name}: {line}"


def test_no_paper_and_no_code_knows_the_machine_it_was_made_on() -> None:
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    marks = re.compile("|".join(["/" + "root/", "TO" + "DO", "FIX" + "ME"]))
    for name in tracked:
        if name.endswith((".sum", ".json", ".svg", "LICENSE")) or not (ROOT / name).is_file():
            continue
        found = marks.search((ROOT / name).read_text(errors="replace"))
        assert found is None, f"{name}: {found and found.group()}"
