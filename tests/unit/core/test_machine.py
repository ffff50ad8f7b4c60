"""Facts of this machine are JSON and hold still between two looks."""

import json
import os

from edgeft.core import machine


def test_what_a_key_may_hold_does_not_change() -> None:
    assert machine.cpu() == machine.cpu()
    assert machine.cpu()["cores"] == len(os.sched_getaffinity(0))


def test_facts_are_json() -> None:
    assert json.loads(json.dumps(machine.facts())) == machine.facts()
