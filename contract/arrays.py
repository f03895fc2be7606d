"""Names for the array types that are passed around. Shapes are written where the arrays are used."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Strings: TypeAlias = npt.NDArray[np.object_]
Predictions: TypeAlias = Mapping[str, Array]  # by task: (N,), or class probabilities (N, classes)
