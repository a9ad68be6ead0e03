"""Imported by the fork server: torch computes with one thread in all its forks."""

import torch

torch.set_num_threads(1)
