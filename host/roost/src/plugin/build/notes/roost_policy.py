"""Added by `roost plugin build`: the policy, whose exceptions reach the operator.

What it raises while it decides is left where its host looks for it, since a component that fails
can't be asked any more. It is a note in memory: marks, the length of the text in bytes, the text.
"""

import functools

import policy
from policy import *  # noqa: F401,F403: what the component exports

_notes = []


def _leave(error):
    # Without the module traceback: it looks for source files, and there is no file system.
    at, trace = "", error.__traceback__
    while trace is not None:
        at = f" ({trace.tb_frame.f_code.co_name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    text = f"{type(error).__name__}: {error}{at}".encode("utf-8", "replace")[:1024]
    # In halves, so that the marks stand nowhere but in a note.
    marks = "".join(["1-roostp", "nic:note"]).encode()
    _notes.append(marks + len(text).to_bytes(8, "little") + text)


def _noted(decide):
    @functools.wraps(decide)
    def noted(self, *facts):
        try:
            return decide(self, *facts)
        except BaseException as error:
            _leave(error)
            raise

    return noted


for _hook in ("Admission", "Cleanup", "Recovery", "Billing", "Observer"):
    _class = getattr(policy, _hook, None)
    for _name in ("decide", "observe"):
        if _class is not None and _name in vars(_class):
            setattr(_class, _name, _noted(vars(_class)[_name]))
