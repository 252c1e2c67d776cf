"""The command line as a whole: statuses and what is said, for every way a verb can end, in a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")

# A verb of our own, attached to the real app, ends as the test wants.
PROGRAM = """
import sys
from wherein import cli
from wherein.errors import InputError

@cli.app.command("end")
def end(number: int = 0) -> None:
    {body}

sys.argv = ["wherein", "end", *sys.argv[1:]]
cli.main()
"""


def end(body: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM.format(body=body), *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_success_is_0() -> None:
    done = end("print('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_error_of_ours_is_one_sentence_and_2() -> None:
    done = end("raise InputError('The phrase is empty; give a name.')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "wherein: The phrase is empty; give a name.\n")


@pytest.mark.parametrize("options", [["--number", "three"], ["--nonsense"], ["surplus"]])
def test_wrong_usage_is_2_without_a_traceback(options: list[str]) -> None:
    done = end("print('done')", *options)
    assert done.returncode == 2 and done.stdout == ""
    assert "Error" in done.stderr and "Traceback" not in done.stderr


def test_an_interruption_is_130() -> None:
    done = end("raise KeyboardInterrupt")
    assert done.returncode == 130 and "Traceback" not in done.stderr


def test_a_defect_keeps_its_traceback() -> None:
    done = end("raise ZeroDivisionError")
    assert done.returncode == 1 and "Traceback" in done.stderr and done.stderr.endswith("ZeroDivisionError\n")


@pytest.mark.parametrize("lines", [1, 100_000])  # caught at the last flush, and in the midst of printing
def test_a_reader_that_went_away_is_no_complaint(lines: int) -> None:
    program = PROGRAM.format(body=f"sys.stdin.read(); [print('line') for _ in range({lines})]")
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.close()  # only now may it print
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--version", "--help", "models --json", "end"])
def test_a_full_disk_behind_stdout_is_one_sentence(command: str, unbuffered: str) -> None:
    """Caught in the midst of printing, which Python may do at once or late, and said once, not again at exit."""
    verb = ["-m", "wherein", *command.split()]
    if command == "end":
        verb = ["-c", PROGRAM.format(body="[print('a line') for _ in range(10_000)]")]
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, *verb],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    (sentence,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert sentence.startswith("wherein: Cannot write to standard output: No space left") and sentence.endswith(".")


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_a_full_disk_elsewhere_is_not_taken_for_stdout() -> None:
    done = end("open('/dev/full', 'wb', 0).write(b'x')")
    assert done.returncode == 1 and done.stdout == "" and "OSError" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_an_error_of_ours_where_stdout_is_no_file() -> None:
    """As in a notebook: what prints is a stream of the caller's, without a descriptor."""
    done = end("import io; sys.stdout = io.StringIO(); raise InputError('The phrase is empty.')")
    assert (done.returncode, done.stderr) == (2, "wherein: The phrase is empty.\n")


def test_a_closed_stdout_is_one_sentence() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"'{sys.executable}' -m wherein --version >&-"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("wherein: Standard output is closed")
    assert len(done.stderr.splitlines()) == 1


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom wherein.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: print({'transformers', 'supervision', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "set()"
    for verb in ("locate", "caption", "doctor", "eval", "train"):
        assert f" {verb} " in done.stdout
