import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def alone():
    """torch keeps to one thread: for tensors as small as these, threads wait for each other."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
