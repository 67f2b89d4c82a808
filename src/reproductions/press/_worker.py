"""The child process that executes one notebook; ``execute.py`` starts it.

It reads a job (one line of JSON) from its standard input, runs papermill, and reports each cell on
its standard output, one line of JSON an event. Standard input stays open as long as the command
that started it lives: at its end, whatever ended it, this process and its kernel end too.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from reproductions.press._orphan import end_with_parent, kill_descendants

# Runs in the kernel's process before IPython. On Linux the kernel asks to be killed when this
# worker is, and to be the first that the system kills when memory runs out.
_START_KERNEL = """
import sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
    try:
        open("/proc/self/oom_score_adj", "w").write("1000")
    except OSError:
        pass
import runpy
runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
"""

#: Messages that change an output after it was shown, or talk to a front end: nbval sees none.
_LIVE_MESSAGES = {"clear_output", "update_display_data", "comm_open"}


class _ThisInterpreter(AsyncKernelManager):
    """Whatever kernels are installed: ``python3`` is the interpreter that runs the press."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(
            argv=[sys.executable, "-c", _START_KERNEL, "-f", "{connection_file}"],
            display_name="Python 3 (ipykernel)",
            language="python",
        )


class _Client(PapermillNotebookClient):
    """Papermill's client that reports every cell, and a dead kernel before it cleans up."""

    def __init__(self, nb_man: Any, emit: Any, **kwargs: Any) -> None:
        super().__init__(nb_man, **kwargs)
        self._emit = emit
        self._live: set[str] = set()

    def execute_cell(self, cell: Any, cell_index: int, **kwargs: Any) -> Any:
        if cell.cell_type != "code":
            return cell
        self._emit("cell", index=cell_index)
        try:
            done = super().execute_cell(cell, cell_index, **kwargs)
        except DeadKernelError:
            self._give_up(cell_index, self._cause_of_death())
        except CellTimeoutError:
            self._give_up(cell_index, f"ran longer than the time-out of {self.timeout} s")
        self._emit("done", index=cell_index, live=sorted(self._live))
        return done

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in _LIVE_MESSAGES:
            self._live.add(msg["msg_type"])
        return super().process_message(msg, cell, cell_index)

    def _give_up(self, index: int, reason: str) -> None:
        """Save what there is and end at once: the parent clears the processes away."""
        self.nb_man.save()
        self._emit("failed", index=index, reason=reason)
        kill_descendants()
        os._exit(1)

    def _cause_of_death(self) -> str:
        process = getattr(self.km.provisioner, "process", None)
        status = process.poll() if process is not None else None
        if status is None:
            return "the kernel died"
        if status < 0:
            hint = "; the system does that when memory runs out" if status == -9 else ""
            return f"the kernel was killed by signal {-status}{hint}"
        return f"the kernel ended itself with status {status}"


class _Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, start_timeout: int = 60, **kwargs: Any
    ) -> Any:
        kwargs.pop("input_path", None)
        for name in ("log_output", "stdout_file", "stderr_file"):
            kwargs.pop(name, None)
        client = _Client(
            nb_man,
            kwargs.pop("emit"),
            kernel_name=kernel_name,
            kernel_manager_class=_ThisInterpreter,
            startup_timeout=start_timeout,
            shutdown_kernel="immediate",
            iopub_timeout=60,
            **kwargs,
        )
        return client.execute()


def _execute(job: dict[str, Any], emit: Any, said: set[str]) -> None:
    for last in (False, True):
        try:
            papermill.execute_notebook(
                job["input"],
                job["output"],
                engine_name="reproductions",
                kernel_name="python3",
                progress_bar=False,
                cwd=job["cwd"],
                start_timeout=job["start_timeout"],
                timeout=job["timeout"],
                autosave_cell_every=5,
                emit=emit,
            )
        except PapermillExecutionError as error:
            reason = f"{error.ename}: {error.evalue}".strip(": ")
            emit("failed", index=error.cell_index, reason=reason)
        except RuntimeError as error:
            # two kernels may pick the same free port at the same moment: try once more
            if not last and "cell" not in said:
                continue
            emit("failed", index=None, reason=f"the kernel did not start: {error}")
        else:
            emit("finished")
        return


def main() -> None:
    """Run the job that standard input describes."""
    job = json.loads(sys.stdin.buffer.readline())
    # prints of libraries must not mix with the events
    events: TextIO = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    end_with_parent()

    said: set[str] = set()

    def emit(event: str, **fields: Any) -> None:
        said.add(event)
        events.write(json.dumps({"event": event, **fields}) + "\n")

    papermill_engines.register("reproductions", _Engine)
    _execute(job, emit, said)
    events.flush()
