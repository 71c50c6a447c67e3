"""One contender of `benchmarks.bench_blip` in its own process; speaks the protocol of `vlmquant.bench.worker`."""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlmquant.bench.contenders import Contender, Running
from vlmquant.bench.measure import bytes_on_disk
from vlmquant.bench.worker import main
from vlmquant.bundle import open_bundle
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.heads import as_writer
from vlmquant.models.preprocess import preprocess
from vlmquant.models.spec import ImageSpec

WORKER = (sys.executable, "-m", "benchmarks.generation_worker")
TOKENS = 20
BASELINE, VISION = "transformers-fp32", "vision"
PHASES = {"beam-1": 1, "beam-3": 3, VISION: 1}
"""What is timed, and the width of the beam search."""


def transformers(dynamic: bool, path: Path, phase: str, threads: int) -> Running:
    """Return transformers' own `generate`, in float32 or with every Linear in torch's dynamic INT8."""
    # torch is imported here: the bundles' memory is measured without it.
    import torch
    from transformers import BlipForConditionalGeneration

    torch.set_num_threads(threads)
    model: Any = BlipForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    if dynamic:
        quantize_dynamic: Any = torch.ao.quantization.quantize_dynamic
        model = quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    spec = ImageSpec.from_folder(path)

    def run(images: Any) -> object:
        pixels = torch.from_numpy(np.stack([preprocess(image, spec) for image in images]))
        with torch.inference_mode():
            if phase == VISION:
                return model.vision_model(pixel_values=pixels).last_hidden_state.numpy()
            beams = PHASES[phase]
            return model.generate(pixels, max_new_tokens=TOKENS, min_new_tokens=TOKENS, num_beams=beams).numpy()

    def size() -> int:
        with tempfile.NamedTemporaryFile() as stream:
            torch.save(model.state_dict(), stream)
            return Path(stream.name).stat().st_size

    return Running(run, size)


def bundle(engine: str, path: Path, phase: str, threads: int) -> Running:
    """Return the bundle on one engine, or on those that "auto" takes."""
    options = GenerationOptions(max_new_tokens=TOKENS, min_new_tokens=TOKENS, beams=PHASES[phase])
    runner = as_writer(open_bundle(path, engine=engine, threads=threads, options=options))
    run = runner.states if phase == VISION else runner.caption_ids
    return Running(lambda images: run(list(images)), lambda: bytes_on_disk(path))


def _bundle_on(engine: str, packages: tuple[str, ...]) -> Contender:
    return Contender(runs_on="bundle", packages=packages, build=partial(bundle, engine))


def _transformers_in(dynamic: bool) -> Contender:
    return Contender(runs_on="checkpoint", packages=("transformers",), build=partial(transformers, dynamic))


CONTENDERS = {
    BASELINE: _transformers_in(dynamic=False),
    "torch-dynamic-int8": _transformers_in(dynamic=True),
    "bundle-auto": _bundle_on("auto", ()),
    **{f"bundle-{engine}": _bundle_on(engine, (engine,)) for engine in ("openvino", "onnxruntime")},
}


if __name__ == "__main__":
    main(CONTENDERS)
