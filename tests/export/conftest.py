"""One thread of torch for these tests: with more, two runs on one machine wait for each other for minutes."""

import torch

torch.set_num_threads(1)
