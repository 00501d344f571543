"""Starts `watteau up` again and again without waiting for its imports: a process that has them forks each time.

`python -m tests.runtime.nursery` reads lines of JSON, each the arguments of one `up`, and answers with the number of
the new process. That is an ordinary process, which may be killed at any moment.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """The parent of servers."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.runtime.nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        )
        self._read()  # until it has compiled

    def start(self, *arguments: str) -> int:
        """A new server; its process number."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._log.close()


def _main() -> None:
    import typer

    from watteau.runtime.live_state import compile_core
    from watteau.up import up

    compile_core()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    print(0, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Not the pipe of the nursery, which would stay open for as long as a job runs.
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(2, 1)
            app = typer.Typer()
            app.command()(up)
            app(json.loads(line), standalone_mode=True)
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    _main()
