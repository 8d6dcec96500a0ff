"""`scripts/setup.sh` on machines that lack something: one line that says what, one that mends it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("sh", "cat", "cksum", "cut", "dirname", "grep", "id", "sleep", "tail")

REAL = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
STUB = "#!/bin/sh\necho 'not installed here' >&2\nexit 127\n"
OLD = (
    "#!/bin/sh\n"
    'case "$2" in\n'
    "*print*) echo 3.9 ;;\n"
    "*) exit 1 ;;\n"
    "esac\n"
)  # fmt: skip
BARE = (
    "#!/bin/sh\n"
    'case "$2" in\n'
    "*ensurepip*) exit 1 ;;\n"
    "*print*) echo 3.12 ;;\n"
    "*) exit 0 ;;\n"
    "esac\n"
)  # fmt: skip


class Machine:
    """A checkout and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/setup.sh", folder / "scripts/setup.sh")
        (folder / "pyproject.toml").write_text("[project]\n")
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def setup(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / "sh"), "scripts/setup.sh", *arguments],
            cwd=self.folder,
            env={"PATH": str(self.bin), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_no_python(machine: Machine) -> None:
    machine.program("python3.13", STUB)
    done = machine.setup()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Rulemill needs Python 3.11 or newer.",
        "To mend it:  install Python 3.11 or newer from https://www.python.org/downloads/ and say make again",
    ]
    assert not (machine.folder / ".venv").exists()


def test_an_old_python(machine: Machine) -> None:
    machine.program("python3", OLD)
    machine.program("brew", STUB)
    done = machine.setup()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Rulemill needs Python 3.11 or newer; python3 is Python 3.9.",
        "To mend it:  brew install python",
    ]


def test_a_python_without_venv(machine: Machine) -> None:
    machine.program("python3.12", BARE)
    machine.program("python3", OLD)
    machine.program("apt-get", STUB)
    done = machine.setup()
    assert done.returncode == 1
    what, line = done.stderr.splitlines()
    assert what == "Python 3.12 is here, but without its venv module."
    assert line.startswith("To mend it:  ")
    assert line.endswith("apt-get install python3.12-venv")


def test_the_chosen_python_is_the_only_one_asked(machine: Machine) -> None:
    machine.program("python3", REAL)
    machine.program("ancient", OLD)
    done = machine.setup(PYTHON="ancient")
    assert done.returncode == 1
    assert "PYTHON=ancient is not Python 3.11 or newer." in done.stderr


def test_a_stub_is_passed_over_and_a_failed_install_is_told(machine: Machine) -> None:
    machine.program("python3.14", STUB)
    machine.program("python3.13", BARE)
    machine.program("python3.11", REAL)
    (machine.folder / "pyproject.toml").write_text("this is no TOML\n")
    done = machine.setup("dev")
    assert done.returncode == 1
    assert (machine.folder / ".venv/bin/python").exists()
    assert not list((machine.folder / ".venv").glob("installed*"))
    assert "TOMLDecodeError" in done.stderr
    assert done.stderr.splitlines()[-2].startswith("pip could not install Rulemill")


def test_nothing_is_done_twice(machine: Machine) -> None:
    machine.program("python3", REAL)
    (machine.folder / ".venv/bin").mkdir(parents=True)
    machine.program("fake", "#!/bin/sh\nexit 0\n")
    (machine.folder / ".venv/bin/python").symlink_to(machine.bin / "fake")
    sums = subprocess.run(
        ["sh", "-c", "cksum <pyproject.toml"], cwd=machine.folder, capture_output=True, text=True, check=True
    )
    stamp = machine.folder / ".venv/installed-dev"
    stamp.write_text(f"{machine.folder.resolve()} {sums.stdout}")
    for arguments in ((), ("dev",)):
        done = machine.setup(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # What is there with the dev tools is enough to run; what is enough to run is not enough for the dev tools.
    stamp.rename(machine.folder / ".venv/installed")
    assert machine.setup().stderr == ""
    assert "Installing Rulemill and its dev tools" in machine.setup("dev").stderr
