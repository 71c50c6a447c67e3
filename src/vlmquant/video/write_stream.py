"""What is written while a source is watched, so that nothing of it has to be kept in memory."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vlmquant.files import growing_file, write_whole
from vlmquant.models.spec import FloatArray
from vlmquant.output import writing
from vlmquant.video.watch import Observation
from vlmquant.video.write import FILES, csv_bytes, score_columns, score_row

SCORES = FILES["scores"]
EMBEDDINGS, EMBEDDINGS_FACTS = "embeddings.npy", "embeddings.json"


class ScoreTable:
    """A CSV table: per frame its time in seconds and the probability of every event, before smoothing."""

    def __init__(self, file: BinaryIO, names: Sequence[str]) -> None:
        self._file = file
        file.write(csv_bytes([score_columns(names)]))

    def add(self, observation: Observation) -> None:
        """Write the row of one frame."""
        self._file.write(csv_bytes([score_row(observation.pts_seconds, observation.scores)]))


class EmbeddingTable:
    """A .npy file: per frame `pts_seconds` (float64) and `embedding` ((d,) float16), for `np.load` without pickle."""

    def __init__(self, file: BinaryIO) -> None:
        self.rows = self.dimension = 0
        self._file = file

    def add(self, observation: Observation) -> None:
        """Write the row of one frame."""
        if self.rows == 0:
            self.dimension = len(observation.embedding)
            self._write_header()
        self._file.write(self._row(observation.pts_seconds, observation.embedding))
        self.rows += 1

    def finish(self) -> None:
        """Write how many rows there are into the header, which keeps its length."""
        self._file.seek(0)
        self._write_header()

    @property
    def _type(self) -> np.dtype[Any]:
        return np.dtype([("pts_seconds", "<f8"), ("embedding", "<f2", (self.dimension,))])

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self._type), "fortran_order": False, "shape": (self.rows,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _row(self, pts_seconds: float, embedding: FloatArray) -> bytes:
        row = np.empty(1, self._type)
        row["pts_seconds"], row["embedding"] = pts_seconds, embedding
        return row.tobytes()


@contextmanager
def score_table(folder: Path, names: Sequence[str]) -> Generator[ScoreTable, None, None]:
    """Write scores.csv, which appears when all went well. Raises DataError when it cannot be written."""
    with writing(folder / SCORES), growing_file(folder / SCORES) as file:
        yield ScoreTable(file, names)


@contextmanager
def embedding_table(folder: Path, facts: Mapping[str, Any]) -> Generator[EmbeddingTable, None, None]:
    """Write embeddings.npy and, beside it, embeddings.json with `facts` (such as the model's hash) and its shape.

    Both appear when all went well. Raises DataError when they cannot be written.
    """
    with writing(folder / EMBEDDINGS):
        with growing_file(folder / EMBEDDINGS) as file:
            table = EmbeddingTable(file)
            yield table
            table.finish()
        shape = {"rows": table.rows, "dimension": table.dimension}
        write_whole(folder / EMBEDDINGS_FACTS, json.dumps({**facts, **shape}, indent=1))
