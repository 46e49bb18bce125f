"""A real server of llama.cpp on loopback: `python llama_cpp.py MODEL PORT [KEY]` serves until its input ends."""

import contextlib
import socket
import subprocess
import sys


@contextlib.contextmanager
def serving(model, *, key=None):
    """Yield the address of a server of this model in another process, which is ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(model), str(port), *([key] if key else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.terminate()


if __name__ == "__main__":
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path, asked.port = sys.argv[1], int(sys.argv[2])
    asked.api_keys = sys.argv[3:]
    asked.hostnames = ["127.0.0.1"]
    asked.n_parallel, asked.n_ctx = 4, 4096
    # More threads wait for each other actively, which costs more than it gains where other work is done.
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
    asked.warmup = False
    server = xllamacpp.Server(asked)
    print(server.listening_address, flush=True)
    sys.stdin.read()
