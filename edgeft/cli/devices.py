"""`edgeft devices`: machines by name, what they are, and whether they still are."""

from typing import Annotated

import typer

from edgeft.cli.options import JsonFlag, SshConfig

devices = typer.Typer(
    name="devices",
    help="Machines by name, for --device, and what they are.",
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What the device is called.", show_default=False)]


@devices.command()
def add(
    name: Name,
    address: Annotated[
        str, typer.Argument(metavar="ssh://...", help="ssh://user@host[:port][/path/to/python].", show_default=False)
    ],
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="For people: where it stands, whose it is.")] = "",
    ssh_config: SshConfig = None,
    as_json: JsonFlag = False,
) -> int:
    """Keep a device under a name, with what it is.

    It is connected to, so that what is kept is true.

    Exit codes: 0 ok; 2 the name is taken, or the address is none; 4 it cannot be reached, or lacks something.
    """
    from edgeft.cli.known import added, devices_file, tell

    return tell(added(devices_file(), name, address, note, ssh_config), as_json=as_json)


@devices.command()
def ls(as_json: JsonFlag = False) -> int:
    """List the devices, as they were last time."""
    from edgeft.cli.known import devices_file, listed, tell

    return tell(listed(devices_file()), as_json=as_json)


@devices.command()
def check(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which; all of them where none is named.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Keep what was found.")] = False,
    ssh_config: SshConfig = None,
    as_json: JsonFlag = False,
) -> int:
    """Ask a device what has changed since last time.

    Without NAME, all of them. `local` is this machine.

    Exit codes: 0 ok, changed or not; 2 no device is called so; 4 one cannot be reached, or lacks something.
    """
    from edgeft.cli.known import checked, devices_file, tell

    return tell(checked(devices_file(), name, ssh_config, update=update), as_json=as_json)


@devices.command()
def rm(name: Name, as_json: JsonFlag = False) -> int:
    """Forget a device. Nothing is done to the device itself.

    Exit codes: 0 ok; 2 no device is called so.
    """
    from edgeft.cli.known import devices_file, removed, tell

    return tell(removed(devices_file(), name), as_json=as_json)
