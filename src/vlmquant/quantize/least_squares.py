"""Least squares over more rows than fit into memory: sums are added up, and solved at the end."""

import torch
from torch import Tensor

# Of the mean variance of the inputs, added to each: what is linearly dependent on few rows is not trusted.
DAMPING = 0.02


class Sums:
    """Means and covariances, float64, of `inputs`-wide rows and of the `outputs`-wide rows to be fitted to them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.count = 0
        self._row, self._output = torch.zeros(inputs).double(), torch.zeros(outputs).double()
        self._squares = torch.zeros(inputs, inputs).double()
        self._products = torch.zeros(inputs, outputs).double()

    def add(self, rows: Tensor, outputs: Tensor) -> None:
        """Add float64 rows (n, inputs) and (n, outputs)."""
        self.count += len(rows)
        self._row += rows.sum(dim=0)
        self._output += outputs.sum(dim=0)
        self._squares += rows.T @ rows
        self._products += rows.T @ outputs

    @property
    def mean(self) -> Tensor:
        """The mean input, (inputs,)."""
        return self._row / self.count

    @property
    def covariance(self) -> Tensor:
        """That of the inputs, (inputs, inputs)."""
        return self._squares / self.count - torch.outer(self.mean, self.mean)

    def fit(self) -> tuple[Tensor, Tensor]:
        """Return the weight (outputs, inputs) and bias (outputs,) of least squared error, drawn towards 0 (ridge)."""
        goal = self._output / self.count
        crossed = self._products / self.count - torch.outer(self.mean, goal)
        weight = torch.linalg.solve(damped(self.covariance), crossed).T
        return weight, goal - weight @ self.mean


def damped(covariance: Tensor) -> Tensor:
    """Return `covariance` with `DAMPING` of its mean variance added to its diagonal."""
    mean = covariance.diagonal().mean().clamp(min=1e-12)
    return covariance + DAMPING * mean * torch.eye(len(covariance), dtype=covariance.dtype)
