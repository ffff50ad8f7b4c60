"""Where a device is, ssh://[user@]host[:port][/path/to/python], and the ssh command that runs a job there.

The command's shell makes a temporary folder, takes exactly so many bytes of archive from its input, and removes the
folder whatever happens. What follows the archive on the input is for the job.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from edgeft.core.errors import UsageError

LOCAL = "local"
"""This machine, where an address may stand."""
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>\w[\w.-]*)@)?(?P<host>\w[\w.-]*|\[[0-9a-fA-F:]+\])(?::(?P<port>\d+))?(?P<python>/.*)?"
)
_RECEIVE = """\
import os, sys
if sys.version_info < (3, 11):
    sys.exit("Python %d.%d, and 3.11 is needed" % sys.version_info[:2])
left = int(sys.argv[1])
with open("sent.tgz", "wb") as file:
    while left:
        some = os.read(0, min(left, 65536))
        if not some:
            sys.exit("the archive was cut off")
        file.write(some)
        left -= len(some)
"""
"""Reads no byte too many: what follows belongs to the job."""
_SHELL = (
    'd=$(mktemp -d "${{TMPDIR:-/tmp}}/edgeft-XXXXXX") || exit 4; trap "" PIPE; '
    'trap \'rm -rf "$d"\' EXIT HUP INT TERM; cd "$d" && export TMPDIR="$d" && '
    "{python} -c {receive} {size} && tar xzf sent.tgz && rm sent.tgz && "
    'PYTHONPATH="$d" {python} -m edgeft.pipeline.device.on_device'
)


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that OpenSSH reaches.

    Args:
        text: as it was given.
        target: what ssh is told, user@host or host.
        port: or None for ssh's own choice.
        python: the interpreter there.
        ssh_config: OpenSSH's configuration; None is the user's own.
    """

    text: str
    target: str
    port: str | None
    python: str
    ssh_config: Path | None = None

    @classmethod
    def parse(cls, text: str, ssh_config: Path | None = None) -> "Device":
        """Read ssh://[user@]host[:port][/path/to/python].

        Raises:
            UsageError: it is something else.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise UsageError(
                f"--device {text}: expected local, or ssh://user@host[:port][/path/to/python]",
                hint="for example --device ssh://pi@192.168.1.7",
            )
        user, host = found["user"], found["host"].strip("[]")
        return cls(text, f"{user}@{host}" if user else host, found["port"], found["python"] or "python3", ssh_config)

    def command(self, size: int) -> list[str]:
        """Return the ssh command that reads an archive of `size` bytes and runs the job in it."""
        config = ["-F", str(self.ssh_config)] if self.ssh_config else []
        port = ["-p", self.port] if self.port else []
        alive = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        alive += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
        python, receive = shlex.quote(self.python), shlex.quote(_RECEIVE)
        shell = _SHELL.format(python=python, receive=receive, size=size)
        return ["ssh", *config, *port, *alive, self.target, shell]
