"""Triton's kernels as a card would get them, compiled on a machine without one: what their machine code is."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

BIN = Path(triton.__file__).parent / "backends/nvidia/bin"


class Compiled(NamedTuple):
    code: list[str]  # instructions, and labels
    ptx: str
    registers: int
    stack: int  # bytes; registers are spilled to it

    @property
    def loop(self):
        """Instructions of the longest stretch that is jumped back over, and over no other."""
        at = {line[:-1]: k for k, line in enumerate(self.code) if line.endswith(":")}
        jumps = [(re.search(r"BRA.*?(\.L_x_\w+)", line), k) for k, line in enumerate(self.code)]
        loops = [(at[jump[1]], k + 1) for jump, k in jumps if jump and at[jump[1]] < k]
        inner = [(a, b) for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
        return max(([line for line in self.code[a:b] if not line.endswith(":")] for a, b in inner), key=len)


class Driver:
    """Answers to what Triton asks a card's driver before it compiles."""

    def __init__(self, architecture):
        self.target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return self.target.arch  # by which kernels are kept

    def get_current_stream(self, device):
        return 0


def compiled(work, architecture, directory):
    """Name and machine code of each kernel that `work` launches, as it launches it; nothing is run."""
    result, launch = [], JITFunction.run

    def compile_only(kernel, *arguments, grid, warmup, **how):
        result.append((kernel.fn.__name__, launch(kernel, *arguments, grid=grid, warmup=True, **how)))

    JITFunction.run = compile_only
    driver.set_active(Driver(architecture))
    try:
        work()
    finally:
        JITFunction.run = launch
        driver.set_active(None)  # whichever there is
    different = {id(kernel): (name, kernel) for name, kernel in result}
    return [(name, _read(kernel, Path(directory) / f"{name}.cubin")) for name, kernel in different.values()]


def _read(kernel, file):
    file.write_bytes(kernel.asm["cubin"])
    used = _run("cuobjdump", "-res-usage", file)
    registers, stack = (int(re.search(rf"{what}:(\d+)", used)[1]) for what in ("REG", "STACK"))
    listing = _run("nvdisasm", "-c", file).splitlines()
    lines = (re.search(r"^(\.L_x_\w+:)|/\*[0-9a-f]{4,}\*/\s+(.*?);", line) for line in listing)
    return Compiled([line[1] or line[2].strip() for line in lines if line], kernel.asm["ptx"], registers, stack)


def _run(tool, *arguments):
    done = subprocess.run([BIN / tool, *map(str, arguments)], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
