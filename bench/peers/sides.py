# SPDX-License-Identifier: Apache-2.0
"""The two kinds of process that are compared: a C++ driver or a Python worker.

Both speak the same protocol, one line in, one line of JSON out (see README.md), keep their data in
memory between commands, and take the time themselves, so pipes and parsing are never measured.
"""

import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


class SideError(RuntimeError):
    """A side answered {"error": …} or died."""


def environment(threads, build):
    """Every runtime gets the same thread count. Wait policies stay the runtimes' own: the harness
    lets a pool fall asleep before the other side starts, and checks that it did."""
    env = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "QUERN_NUM_THREADS"):
        env[name] = str(threads)
    env["KMP_BLOCKTIME"] = "1"
    env["PEERS_BUILD"] = os.path.abspath(build)
    return env


def processors(threads):
    """The last `threads` processors that we may use: the first takes most interrupts."""
    return sorted(os.sched_getaffinity(0))[-threads:]


class Side:
    """A running driver or worker."""

    def __init__(self, name, command, threads, options):
        self.name = name
        wanted = processors(threads)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=options.data,
            env=environment(threads, options.build),
            preexec_fn=(lambda: os.sched_setaffinity(0, wanted)) if not options.no_pin else None,
        )
        self.info = self.ask("info")

    def ask(self, *words):
        """Sends one command and returns the reply as a dictionary."""
        line = " ".join(str(word) for word in words)
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            while True:
                reply = self.process.stdout.readline()
                if not reply:
                    raise SideError(f"{self.name}: ended at '{line}'")
                if reply.startswith("{"):  # libraries print notes of their own to stdout
                    break
        except BrokenPipeError:
            raise SideError(f"{self.name}: ended before '{line}'") from None
        reply = json.loads(reply)
        if "error" in reply:
            raise SideError(f"{self.name}: {line}: {reply['error']}")
        return reply

    def cpu_seconds(self):
        """Processor time used so far by all threads of the process."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        """Ends the process: asked first, then made to, when it is deep in work."""
        if self.process.poll() is None:
            try:
                self.process.stdin.write("quit\n")
                self.process.stdin.close()
                self.process.wait(timeout=5)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()


def find_program(build, name):
    """Path of a built program anywhere under the build folder, or None."""
    for folder, _, files in os.walk(build):
        if name in files and os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    return None


def driver_command(build, program):
    path = find_program(build, program)
    if path is None:
        raise SideError(f"{program}: not built under {build}")
    return [os.path.abspath(path)]


def worker_command(area, peer):
    return [sys.executable, os.path.join(HERE, "worker.py"), area, peer]


def settle(seconds=0.02):
    """Time for a thread pool that spins after its work (libgomp: about a millisecond) to sleep."""
    time.sleep(seconds)
