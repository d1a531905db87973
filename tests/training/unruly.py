"""Verifiers that do what none should; in a module of their own, which another process loads quickly."""

import os
import time

from grpo_dynamics.training.verifiers import verdict


def unruly(questions, completions):
    """A verifier that does what a completion says."""
    for text in completions:
        if text == "hang":
            while True:
                pass
        if text == "sleep":
            time.sleep(600)
        if text == "raise":
            raise RuntimeError(text)
        if text == "exit":
            os._exit(0)
        if text == "leave":
            raise SystemExit(0)
        if text == "memory":
            raise MemoryError
        if text == "nonsense":
            return ["yes"]
        if text == "nothing":
            return []
    return [verdict(text == q.answer) for q, text in zip(questions, completions, strict=True)]


class HereOnly:
    """A verifier that can be sent, but not received."""

    def __init__(self, home=None):
        self.home = os.getpid() if home is None else home
        if self.home != os.getpid():
            raise RuntimeError("here only")

    def __reduce__(self):
        return HereOnly, (self.home,)
