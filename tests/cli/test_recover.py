import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vlmquant.bundle import verify
from vlmquant.cli.app import make_app
from vlmquant.errors import RecipeError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for index in range(32):
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def test_a_recovered_bundle_says_so_and_verifies(tiny_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    arguments = ["recover", str(tiny_checkpoint), "--images", str(pictures), "-o", str(output)]
    options = ["--recipe", "vanilla-w4a4", "--steps", "2", "--components", "image", "--device", "cpu", "--json"]
    result = CliRunner().invoke(make_app(), [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0
    manifest = json.loads(result.stdout)
    assert manifest["components"]["image"]["recipe"]["name"] == "vanilla-w4a4 recovered"
    facts = manifest["source"]["recovered"]
    assert facts["steps"] == 2
    assert facts["device"] == "cpu"
    assert facts["inputs"] == {"image": 32}
    assert set(facts["loss_before"]) == set(facts["loss_after"]) == {"image"}
    assert {row.component for row in verify(output).rows} == {"image", "text"}
    assert list(tmp_path.iterdir()) == [output], "the state of the tuning is gone"


def test_a_simulation_only_recipe_is_refused_before_any_tuning(
    tiny_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["recover", str(tiny_checkpoint), "--images", str(pictures), "-o", str(tmp_path / "b")]
    with pytest.raises(RecipeError, match="simulation only"):
        CliRunner().invoke(make_app(), [*arguments, "--recipe", "twin-hessian-w4a4"], catch_exceptions=False)
    assert not list(tmp_path.iterdir())
