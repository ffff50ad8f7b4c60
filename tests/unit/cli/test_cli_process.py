"""The command line as a process: signals, exit codes, streams."""

import os
import signal
import subprocess
import sys

PATCHED = """
import signal, sys, time
import edgeft.recipe.load

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with SIGINT ignored

def load_recipe(*arguments, **options):
    print("loading", file=sys.stderr, flush=True)
    time.sleep(60)

edgeft.recipe.load.load_recipe = load_recipe
from edgeft.cli.main import main
sys.argv = ["edgeft", "build", "my cells", "--json"]
main()
"""


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeft", "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: edgeft ")
    assert done.stderr == ""


def test_sigint_ends_a_build_with_130_and_says_how_to_resume() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PATCHED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "`edgeft build 'my cells' --json` resumes" in err
    assert '"exit_code": 130' in out


def test_a_reader_that_went_away_is_no_traceback() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "edgeft", "--help"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write_end)
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
