"""Golden vectors as the agent reads them, for whatever writes a bundle."""

import numpy as np


def as_text(tensors: dict[str, np.ndarray]) -> bytes:
    """One tensor a line: name, dimensions joined by `x`, values in shortest round-trip form."""
    lines = []
    for name, tensor in tensors.items():
        values = " ".join(repr(float(value)) for value in tensor.ravel())
        lines.append(f"{name} {'x'.join(map(str, tensor.shape))} {values}\n")
    return "".join(lines).encode()
