"""A single torch thread for these tests: with more, parallel test runs block each other for minutes."""

import torch

torch.set_num_threads(1)
