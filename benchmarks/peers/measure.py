"""Run a command, and write what it took to a file: ``python -I -S measure.py COST.json SECONDS COMMAND ...``.

A process of its own, and a small one: what a child's memory is said to have been at its worst is never less than that
of the process that started it.
"""

import json
import os
import subprocess
import sys
import threading
import time


def main() -> int:
    to, limit_s, *command = sys.argv[1:]
    begun = time.perf_counter()
    process = subprocess.Popen(command, start_new_session=True)
    watch = threading.Timer(float(limit_s), os.killpg, (process.pid, 9))
    watch.start()
    _, status, used = os.wait4(process.pid, 0)
    watch.cancel()
    seconds = time.perf_counter() - begun
    cost = {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * 1024}
    with open(to, "w", encoding="utf-8") as file:
        json.dump(cost, file)
    return 124 if seconds >= float(limit_s) else abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
