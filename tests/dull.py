"""What a worker of tests does, in a module that is imported at once."""

import os
import signal
import time
from typing import Any


def dull() -> Any:
    """It hangs, dies or fails where it is told to."""

    def answer(task: str) -> str:
        if task == "hang":
            time.sleep(1_000)
        if task == "die":
            signal.raise_signal(signal.SIGKILL)
        if task == "leave":
            os._exit(3)
        if task == "fail":
            raise KeyError("x")
        return task * 100_000 if task == "long" else task

    return answer
