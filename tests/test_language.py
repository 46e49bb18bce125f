"""The language of source and tests: docstrings open with a verb or a noun, names say what they hold."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])
}
SOURCES = {name: tree for name, tree in FILES.items() if name.startswith("src/")}
OPENINGS = set("What Of As Where Whether How Which They Its Their It That These Those From".split())
NAMES = set("found made told there here own how".split())
PUBLIC = {"how"}  # a parameter of `repair`, the option `--how`
KEYS = {
    "src/darkvocab/checkpoints/scan_result.py",
    "src/darkvocab/notebooks/recipes.py",
}  # fields that JSON has: how, here
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
DOCUMENTED = ast.Module | ast.ClassDef | FUNCTIONS
MOST_TUPLES = 100
LONGEST = 50
LONGER = {"src/darkvocab/numerics/_backends/levels.py: log_cdf"}  # one kernel: its parts would share a dozen arrays


def nodes(trees: dict[str, ast.Module]) -> Iterator[tuple[str, ast.AST]]:
    """Yield all nodes, each with the name of its file."""
    for name, tree in trees.items():
        for node in ast.walk(tree):
            yield name, node


def test_docstrings_open_with_a_verb_or_a_noun():
    wrong = [
        f"{name}: {docstring.splitlines()[0]}"
        for name, node in nodes(FILES)
        if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node))
        if docstring.split()[0].strip(":,.") in OPENINGS
    ]
    assert wrong == []


def test_names_say_what_they_hold():
    wrong = []
    for name, node in nodes(FILES):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in NAMES:
            wrong.append((name, node.lineno, node.id))
        if isinstance(node, ast.arg) and node.arg in NAMES - PUBLIC:
            wrong.append((name, node.lineno, node.arg))
    assert [place for place in wrong if place[0] not in KEYS] == []


def test_tuples_are_assigned_only_where_values_belong_together():
    pairs = Counter(
        name
        for name, node in nodes(SOURCES)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)
    )
    assert pairs.total() < MOST_TUPLES, pairs.most_common(10)


def test_class_names_are_unique():
    classes = Counter(node.name for _, node in nodes(SOURCES) if isinstance(node, ast.ClassDef))
    assert [name for name, count in classes.items() if count > 1] == []


def test_functions_are_short():
    # Their code: a signature with types and the docstring of its parameters are as long as they need be.
    lengths = {}
    for name, node in nodes(SOURCES):
        if isinstance(node, FUNCTIONS):
            code = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lengths[f"{name}: {node.name}"] = node.end_lineno - code[0].lineno + 1
    assert {name for name, length in lengths.items() if length > LONGEST} <= LONGER
