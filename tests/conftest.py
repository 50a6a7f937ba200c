"""One CPU thread for every test: small networks gain nothing from more, and busy machines lose a lot."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for the processes that tests start

import torch  # noqa: E402

torch.set_num_threads(1)
