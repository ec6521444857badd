"""Who may import whom: scripts → callbacks → lightning_modules → datamodules, never back, and no circles."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("datamodules", "lightning_modules", "callbacks", "scripts")  # each may import those before it
COMMANDS = (
    "scripts.report", "scripts.ablation", "scripts.benchmark", "scripts.explain", "scripts.export", "scripts.serve",
    "scripts.demo", "scripts.pack",
)  # fmt: skip

# What the modules of a folder must not import, with the reason that a broken rule gives.
FORBIDDEN = {
    **{package: (PACKAGES[place + 1 :], "it is below") for place, package in enumerate(PACKAGES[:-1])},
    "lightning_modules.network": (("pytorch_lightning", "datamodules"), "the network is plain PyTorch"),
    "callbacks.run": (("callbacks.predictions", "callbacks.figures"), "a run needs no table and no picture"),
    "callbacks.guards": (("callbacks.predictions", "callbacks.figures"), "a guard needs no table and no picture"),
    "callbacks.predictions": (("callbacks.figures",), "data do not depend on how they are drawn"),
    **{command: (COMMANDS, "no command needs another's folder") for command in COMMANDS},
}
# One that needs another's folder after all, and why.
EXCEPTIONS = {
    ("scripts.report", "scripts.explain"): "the report shows where the model looks",
    ("scripts.benchmark", "scripts.demo"): "a benchmark draws its images",
}


def inside(module, folder):
    return module == folder or module.startswith(f"{folder}.")


def imports(path, top_level=False):
    """The modules that a file names in imports; those inside functions too, unless ``top_level``."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules():
    """Every module of the project, with its file."""
    files = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]
    return {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path for path in files
    }


def offences(modules):
    for module, path in modules.items():
        for folder, (forbidden, reason) in FORBIDDEN.items():
            for name in imports(path) if inside(module, folder) else ():
                for other in forbidden:
                    if inside(name, other) and other != folder and (folder, other) not in EXCEPTIONS:
                        yield f"{module} imports {name}, but {folder} must not import {other}: {reason}"
        if inside(module, "datamodules.files"):
            for name in imports(path):
                if inside(name, "datamodules") and not inside(name, "datamodules.files"):
                    yield f"{module} imports {name}, but datamodules.files knows nothing of the rest"


def circle(modules):
    """Modules that import each other when they are loaded, in a chain, or an empty list."""
    graph = {}
    for module, path in modules.items():
        names = set(imports(path, top_level=True))
        graph[module] = {
            found for name in names if (found := name if name in modules else name.rpartition(".")[0]) in modules
        }
    state, chain = {}, []

    def visit(module):
        state[module] = "open"
        chain.append(module)
        for other in sorted(graph[module] - {module}):
            if state.get(other) == "open":
                return [*chain[chain.index(other) :], other]
            if other not in state and (found := visit(other)):
                return found
        state[module] = "done"
        chain.pop()
        return []

    return next((found for module in sorted(modules) if module not in state and (found := visit(module))), [])


def test_no_module_imports_what_it_must_not():
    assert list(offences(own_modules())) == []


def test_no_circles():
    assert circle(own_modules()) == []


@pytest.mark.parametrize(
    ("module", "line", "sentence"),
    [
        ("datamodules.sampler", "import callbacks.processes", "datamodules must not import callbacks: it is below"),
        (
            "lightning_modules.network.attention",
            "from pytorch_lightning import Trainer",
            "the network is plain PyTorch",
        ),
        ("callbacks.guards.size_budget", "from callbacks.figures import draw", "a guard needs no table and no picture"),
        ("scripts.ablation.runs", "def f():\n    from scripts.report.command import report", "another's folder"),
        ("datamodules.files.errors", "from datamodules import ClassIndex", "knows nothing of the rest"),
    ],
)
def test_a_broken_rule_is_named(module, line, sentence, tmp_path):
    broken = tmp_path / "module.py"
    broken.write_text(line)
    (offence,) = offences({module: broken})
    assert offence.startswith(f"{module} imports ")
    assert sentence in offence


def test_a_circle_is_found(tmp_path):
    modules = {name: tmp_path / f"{name}.py" for name in ("a", "b", "c")}
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        modules[name].write_text(f"from {other} import x")
    assert circle(modules) == ["a", "b", "c", "a"]
