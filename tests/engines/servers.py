"""A program that forks servers, so that a test can kill them: each opens a local engine on one spool and starts jobs.

It reads lines `first last` and answers with the process number of a server that sees to the jobs `first` to `last - 1`:
what is absent it starts, and everything it looks at again and again until it is killed. Forking from here, where there
is one thread and all is imported, takes a millisecond.
"""

import os
import signal
import sys
import time
from pathlib import Path

from tests.engines.kits import NODE, launch, now_ms
from watteau.engines.contract import Seen, attempt_name
from watteau.engines.local import LocalEngine


def serve(spool: Path, ledger: Path, first: int, last: int) -> None:
    """Be a server until killed."""
    engine = LocalEngine(spool, NODE, now_ms)
    while True:
        for job_id in range(first, last):
            if engine.adopt([attempt_name(job_id, 1)])[0].seen is Seen.ABSENT:
                # One short write to a file opened for appending: whole, and never over another's.
                engine.start(launch(job_id, "sh", "-c", f"echo {job_id} >>{ledger}; sleep 0.02; echo done"))
        time.sleep(0.002)


def main() -> None:
    """Fork a server for each line of the standard input."""
    spool, ledger = Path(sys.argv[1]), Path(sys.argv[2])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        first, last = map(int, line.split())
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(spool, ledger, first, last)
            finally:
                os._exit(1)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
