"""A step as one CUDA graph: what the host would launch call by call, launched at once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

WARM_UPS = 3  # before a capture, as torch's documentation has it: libraries make their workspaces in these


def captured(torch: Any, device: Any, function: Callable[[], None], state: Sequence[Any]) -> Callable[[], None]:
    """Return `function` to be called many times: on CUDA captured and replayed, elsewhere itself.

    It must work on tensors that stay where they are and wait for nothing; `state` are those that it
    changes and reads again. They are left as they were.
    """
    if device.type != "cuda":
        return function
    before = [tensor.clone() for tensor in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    gc.collect()  # a graph that was given up must not go while another is captured
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):  # torch's own stream for this is on the card that captured first
        function()
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
    replay: Callable[[], None] = graph.replay
    return replay
