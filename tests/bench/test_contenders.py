"""The torch contenders inside one process, on the tiny CLIP."""

from pathlib import Path

import numpy as np
import pytest

from vlmquant.bench.contenders import CONTENDERS
from vlmquant.bench.inputs import example_batch


@pytest.mark.parametrize("component", ["image", "text"])
def test_torchscript_gives_the_numbers_of_the_eager_model_at_every_batch_size(
    tiny_checkpoint: Path, component: str
) -> None:
    eager = CONTENDERS["torch-dynamic-int8"].build(tiny_checkpoint, component, 1)
    script = CONTENDERS["torchscript-dynamic-int8"].build(tiny_checkpoint, component, 1)
    for batch in (1, 3):
        inputs = example_batch(tiny_checkpoint, component, batch, seed=0)
        np.testing.assert_allclose(script.run(inputs), eager.run(inputs), atol=1e-5)
    assert script.bytes_on_disk() > 0
