"""The command line: signatures, tables and progress; every decision is taken in another room.

The modules of verbs (`build`, `device`, `project`) import stdlib and typer only; their bodies import the rest, so that
`edgeft --help` stays under 0.2 s of CPU.
"""
