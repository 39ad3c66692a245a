"""How finely remaining life is told, and up to which length."""

import dataclasses

import numpy as np
from scipy.special import ndtr


@dataclasses.dataclass(frozen=True)
class Scale:
    """All in rows of life."""

    #: Ends of the stretches of remaining life, from 0 to the cap; beyond it is one more.
    edges: np.ndarray
    #: Predicted remaining lives that have a row in the table of levels, from 0 to the cap.
    knots: tuple[float, ...]
    #: Targets are spread by so many rows, so many more for each row of remaining life, and at most so many: neighbouring stretches are nearly right, near
    #: the end fewer of them.
    spread_least: float
    spread_rise: float
    spread_most: float
    #: The estimate is the mean of lives cut here (restricted mean), at the cap unless set: what is beyond it hardly shows in a machine, and would be most of a mean.
    cut: float | None = None

    @property
    def cap(self) -> float:
        return float(self.edges[-1])

    @property
    def middles(self) -> np.ndarray:
        """What a life that ends in a stretch counts for in the estimate: rows are whole, so it does so half a row after the middle."""
        middles = np.append((self.edges[:-1] + self.edges[1:] + 1) / 2, self.edges[-1])
        return np.minimum(middles, self.cap if self.cut is None else self.cut)

    def wanted(self, remaining: np.ndarray) -> np.ndarray:
        """Chance of each stretch, the last for all that is beyond the cap. Remaining r lasts from r - 1 to r, so that what ends within r is below an edge at r."""
        spread = np.clip(self.spread_least + self.spread_rise * remaining, None, self.spread_most)
        below = ndtr((self.edges[1:] - remaining[:, None] + 0.5) / spread[:, None])
        return np.diff(below, axis=1, prepend=0.0, append=1.0).astype(np.float32)
