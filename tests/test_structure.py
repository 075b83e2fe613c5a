"""The shape of the house: who may import whom, and how large a room may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {
    "config": 0, "config_faults": 0, "types": 0, "distances": 0, "preprocess": 0, "backend": 0,
    "cluster": 0,
    "losses": 1, "metrics": 1, "augment": 1, "stroke": 1,
    "models": 2, "data": 2,
    "training": 3, "evaluation": 3,
    "recipe": 4,
    "run": 5, "start": 5,
    "benchmark": 5,
    "selfcheck": 5,
    "report": 5,
    "demo": 6,
    "predictions": 6,
    "hard_classes": 6,
    "inference": 5, "ensemble": 5,
    "embeddings": 5, "explain": 5, "export": 5,
    "gallery": 5, "gallery_file": 5, "gallery_items": 5,
}  # fmt: skip
FILES = sorted((ROOT / "siamjax").rglob("*.py"))
COMMANDS, RECIPES = (sorted((ROOT / folder).glob("*.py")) for folder in ("experiments", "configs"))
EVERYTHING = [*FILES, *COMMANDS, *RECIPES]


def room(path: Path) -> str:
    return path.relative_to(ROOT / "siamjax").parts[0].removesuffix(".py")


def imports(path: Path):
    """(module, whether it is imported when the file is) of every import of a file."""
    tree = ast.parse(path.read_text())
    late = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            yield name, id(node) not in late


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    if path.name == "__init__.py" and path.parent.name == "siamjax":
        return
    mine = room(path)
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] != "siamjax" or len(parts) < 2 or parts[1] not in LAYERS:
            continue
        other = parts[1]
        assert LAYERS[other] <= LAYERS[mine], f"{mine} imports {name}, from a higher layer"
        assert {mine, other} != {"models", "data"}, f"{mine} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_keep_to_their_own_libraries(path):
    names = {name.split(".")[0] for name, _ in imports(path)}
    if room(path) != "models":
        assert "flax" not in names or path.name == "recipe.py"
    if room(path) == "data":
        assert not names & {"jax", "flax", "optax"}
    early = {name.split(".")[0] for name, at_once in imports(path) if at_once}
    slow = {"PIL", "tensorflow_datasets", "matplotlib", "sklearn", "pooch", "tqdm", "tensorboardX"}
    assert not early & slow, f"import {early & slow} where it is used"


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path):
    text = path.read_text()
    assert text.count("\n") <= 400, "one room or two?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{node.name} is long"


def test_configs_import_the_config_only():
    for path in (ROOT / "configs").glob("*.py"):
        for name, _ in imports(path):
            assert name.split(".")[0] == "configs" or name in ("siamjax", "siamjax.config"), (
                f"{path.name} imports {name}"
            )
