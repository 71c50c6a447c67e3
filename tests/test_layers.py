"""The arrows between packages point one way, and light modules stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "vlmquant"
STREETWORLD = ROOT / "packages" / "streetworld" / "src"
LEAVES = ("errors", "files", "limits", "output", "process", "progress", "text", "metrics")
DEPLOY = (*LEAVES, "data", "models", "engines", "bundle", "video")
"""From the leaves up: what runs a bundle. Each package imports only what stands before it."""
MAKE = ("checkpoints", "quantize", "build")
USE = ("opening", "bench", "tasks", "budget", "lab", "doctor", "selfcheck", "report", "demo", "cli")
NOT_FOR_MAKE = ("video",)


def may_import(package: str) -> set[str]:
    """Return the packages that `package` may import: the arrows of docs/design.md."""
    if package in LEAVES:
        return set(LEAVES)
    if package in DEPLOY:
        return set(DEPLOY[: DEPLOY.index(package) + 1])
    if package in MAKE:
        return {*DEPLOY, *MAKE[: MAKE.index(package) + 1]} - {*NOT_FOR_MAKE}
    assert package in USE, f"{package} has no place among the layers"
    return {*DEPLOY, *MAKE, *USE[: USE.index(package) + 1]}


HEAVY = ("torch", "transformers", "onnxruntime", "openvino", "av", "matplotlib", "sklearn", "scipy", "onnx")


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def roots(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imported_modules(path)}


def package_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_to_lower_layers(path: Path) -> None:
    package = package_of(path)
    if package in ("__init__", "__main__"):
        return
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] == "vlmquant" and len(parts) > 1:
            assert parts[1] in may_import(package), f"{path} imports {module}"


@pytest.mark.parametrize("package", [*DEPLOY, "tasks"])
def test_what_runs_a_bundle_does_not_know_torch(package: str) -> None:
    for path in [SOURCE / f"{package}.py", *(SOURCE / package).rglob("*.py")]:
        if not path.exists():
            continue
        assert not roots(path) & {"torch", "transformers"}, path


def test_the_demonstration_models_stand_beside_the_package() -> None:
    """Street world takes a few leaves and the set that it fills; only what works without a named model imports it."""
    taken = {module for path in STREETWORLD.rglob("*.py") for module in imported_modules(path)}
    ours = {module.split(".")[1] for module in taken if module.startswith("vlmquant.")}
    assert ours <= {*LEAVES, "checkpoints"}
    users = {package_of(path) for path in SOURCE.rglob("*.py") if "streetworld" in roots(path)}
    assert users <= {"opening", "lab", "demo"}


@pytest.mark.parametrize("package", [*LEAVES, *DEPLOY, *MAKE, "tasks", "opening", "bench", "budget", "lab"])
def test_only_reports_draw(package: str) -> None:
    for path in [SOURCE / f"{package}.py", *(SOURCE / package).rglob("*.py")]:
        if path.exists():
            assert not roots(path) & {"matplotlib", "jinja2"}, path


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, vlmquant; print([name for name in {HEAVY!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
