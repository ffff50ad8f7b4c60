"""Facts of this machine are JSON and hold still between two looks; those of an Arm board and of GPUs are read alike."""

import json
import os
from pathlib import Path

import pytest

from edgeft.core import machine

ARM = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp i8mm
CPU implementer\t: 0x41

processor\t: 1
Features\t: fp
"""


def test_what_a_key_may_hold_does_not_change() -> None:
    assert machine.cpu() == machine.cpu()
    assert machine.cpu()["cores"] == len(os.sched_getaffinity(0))


def test_facts_are_json() -> None:
    assert json.loads(json.dumps(machine.facts())) == machine.facts()


def test_an_arm_board_names_itself_in_the_device_tree(tmp_path: Path) -> None:
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "cpuinfo").write_text(ARM)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    found = machine.cpu(tmp_path)
    assert found["cpu"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["isa"] == ["asimd", "asimdhp", "asimddp", "i8mm"]


def test_without_any_file_the_platform_names_the_processor(tmp_path: Path) -> None:
    found = machine.cpu(tmp_path)
    assert found["cpu"]
    assert found["isa"] == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA A2, 15356 MiB, 550.54'", "NVIDIA A2, 15356 MiB, 550.54"),
        ("printf 'A, 1 MiB, 5\\nB, 2 MiB, 5\\n'", "A, 1 MiB, 5; B, 2 MiB, 5"),
        ("echo 'No devices were found'; exit 6", None),
        ("exit 0", None),
    ],
)
def test_gpus_as_nvidia_smi_names_them(tmp_path: Path, script: str, expected: str | None) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert machine.gpu(tmp_path, str(program)) == expected


def test_gpus_as_the_driver_names_them_where_nvidia_smi_does_not(tmp_path: Path) -> None:
    for number, model in enumerate(("NVIDIA Orin", "NVIDIA A2")):
        card = tmp_path / "proc" / "driver" / "nvidia" / "gpus" / f"0000:0{number}:00.0"
        card.mkdir(parents=True)
        (card / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 42\n")
    assert machine.gpu(tmp_path, str(tmp_path / "none")) == "NVIDIA Orin; NVIDIA A2"
