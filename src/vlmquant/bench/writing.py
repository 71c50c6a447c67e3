"""How a BLIP is timed: from pictures, and questions where it takes them, to what it says."""

from collections.abc import Callable
from pathlib import Path

from vlmquant.bench.measure import bytes_on_disk
from vlmquant.engines.session import AnyArray
from vlmquant.models.generate import GenerationOptions
from vlmquant.models.heads import as_writer
from vlmquant.models.writer import Writer

GENERATION = "generation"
"""The component that a BLIP is benched by: all of its graphs and the decoding loop."""
TOKENS = 20
OPTIONS = GenerationOptions(max_new_tokens=TOKENS, min_new_tokens=TOKENS)
"""A length that every contender is made to write, so that none is fast by saying little."""
QUESTION = "what is in this picture?"
TEXT = "a street with a red bus"


def written_by(runner: Writer) -> Callable[[AnyArray], object]:
    """Return a function from pictures (n, height, width, 3) uint8 to captions, answers or scores, by what it is."""

    def run(pictures: AnyArray) -> object:
        images = list(pictures)
        if runner.kind == "captioning":
            return runner.caption_ids(images)
        if runner.kind == "vqa":
            return runner.answer_ids(images, [QUESTION] * len(images))
        return runner.match(images, [TEXT] * len(images))

    return run


def float_writer(checkpoint: Path, threads: int) -> tuple[Callable[[AnyArray], object], int]:
    """Return what the float model writes in torch, and the bytes of its parameters."""
    import torch

    from vlmquant.checkpoints import load_blip

    torch.set_num_threads(threads)
    model = load_blip(checkpoint, allow_pickle=True)  # `bench` settled which weights may be opened
    tensors = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for graph in model.graphs.values()
        for tensor in graph.state_dict().values()
    }
    return written_by(model.runner(OPTIONS)), sum(tensors.values())


def bundle_writer(engine: str, bundle: Path, threads: int) -> tuple[Callable[[AnyArray], object], int]:
    """Return what a bundle writes on `engine`, and the bytes of the folder."""
    from vlmquant.bundle.open import open_bundle

    runner = as_writer(open_bundle(bundle, engine=engine, threads=threads, options=OPTIONS))
    return written_by(runner), bytes_on_disk(bundle)
