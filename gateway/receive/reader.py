"""A child process that parses bodies for the gateway (see readers.py), one task at a time.

It writes None when it is ready, reads a pickled (task, arguments) from its input and answers (result, AMTPError or None).
SIGPROF ends the process when a task exceeds its CPU time, even inside a library's loop.
"""

import ctypes
import pickle
import signal
import sys

from gateway.protocol.errors import AMTPError

PR_SET_PDEATHSIG = 1


def main(seconds_cpu_max: float) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # no child outlives its gateway
    tasks, answers = sys.stdin.buffer, sys.stdout.buffer
    answer: object = None
    while True:
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
        try:
            task, arguments = pickle.load(tasks)  # noqa: S301 - the gateway wrote it
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds_cpu_max)
        try:
            answer = task(*arguments), None
        except AMTPError as error:
            answer = None, error
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(float(sys.argv[1]))
