"""One torch thread for these tests: with more, test runs in parallel slow each other down by minutes."""

import torch

torch.set_num_threads(1)
