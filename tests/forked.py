"""Commands as a user types them, forked from a process that has imported torch and transformers.

Importing them takes longer than most commands do, and so does taking them apart at the end. Each command is a process
of its own, with the streams, the folder and the variables of its caller; it imports wherein anew, and ends without
freeing what is imported (how `wherein` ends is tested in processes that begin from nothing, tests/cli/test_main.py).
Run as a program, this file is the process that forks, or asks it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ADDRESS = "WHEREIN_TESTS_SOCKET"
WHEREIN = "import runpy; runpy.run_module('wherein', run_name='__main__', alter_sys=True)"
LIMIT = 600  # seconds


def typed(
    folder: Path, *arguments: object, given: Path = Path(os.devnull), **variables: str
) -> subprocess.CompletedProcess[str]:
    """What `wherein ARGUMENTS` does in `folder`, with the file `given` on stdin."""
    command, around = [*python(WHEREIN), *map(str, arguments)], {**environment(), **variables}
    with given.open("rb") as stdin:
        return subprocess.run(
            command, cwd=folder, stdin=stdin, capture_output=True, text=True, timeout=LIMIT, env=around
        )


def python(code: str) -> list[str]:
    """The command that runs a program; it wants the `environment`."""
    return [sys.executable, "-S", "-P", __file__, "ask", code]


def environment() -> dict[str, str]:
    """The variables of this process, with a forked `wherein` first on the path, for scripts."""
    folder = _started()
    return {**os.environ, ADDRESS: str(folder / "socket"), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@cache
def _started() -> Path:
    """Start what forks, once; returns the folder of its socket, which goes when this process does, and it as well."""
    folder = Path(tempfile.mkdtemp(prefix="wherein-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    script = folder / "wherein"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -P "{__file__}" ask "{WHEREIN}" "$@"\n')
    script.chmod(0o755)
    command = [sys.executable, "-P", __file__, "serve", str(folder / "socket")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    return folder


def ask(code: str, *arguments: str) -> int:
    """Have a program run in this process's place; returns its exit status."""
    about = {"code": code, "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ[ADDRESS])
        socket.send_fds(server, [b"."], [0, 1, 2])
        server.sendall(json.dumps(about).encode())
        server.shutdown(socket.SHUT_WR)
        return int(server.makefile().read())


def serve(address: str) -> None:
    """Fork for everyone who asks, until stdin is closed."""
    import scipy.ndimage  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401 - and torch

    gc.freeze()  # a child that looks through it for garbage would copy it
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            asker, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(asker)
            asker.close()
            with suppress(ChildProcessError):  # none is left
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that are done
                    pass


def _answer(asker: socket.socket) -> None:
    """Be one program for the asker in a further process, and tell its status in this one."""
    _, streams, _, _ = socket.recv_fds(asker, 1, 3)
    about = json.loads(asker.makefile().read())
    process = os.fork()
    if process == 0:
        asker.close()
        _become(streams, **about)
    for stream in streams:
        os.close(stream)  # a reader waits until nobody can write any more
    asker.sendall(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) % 256).encode())
    os._exit(0)


def _become(streams: list[int], code: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run a program in what its asker has around it, and end with its status."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - open to the end
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    names: dict[str, Any] = {"__name__": "__main__"}
    status = 1
    try:
        exec(compile(code, "<string>", "exec"), names)
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as Python does with what nobody catches
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined] - waits for the threads that are left
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    _, verb, *words = sys.argv
    if verb == "serve":
        serve(*words)
    else:
        sys.exit(ask(*words))
