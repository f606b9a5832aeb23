"""The documents: every code block runs, every link leads somewhere, every test that is named exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "README.ko.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TEST = re.compile(r"`((?:tests|benchmarks|src|examples|docs)/[\w./-]+\.\w+)(?:::(\w+))?`")
LANGUAGES = {"python", "sh", "text"}  # what is shown as text is output, not code


def code_blocks(language):
    blocks = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            if found[1] == language:
                line = text.count("\n", 0, found.start()) + 2
                blocks.append(pytest.param(found[2], f"{path.name}:{line}", id=f"{path.name}:{line}"))
    return blocks


def found_in_documents(pattern):
    return [(path, found) for path in DOCUMENTS for found in pattern.finditer(path.read_text(encoding="utf-8"))]


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """Where a reader would be: a folder with a small school in `data/`, and the course's program at hand."""
    from dkt.data.simulate import simulate, write_school

    answers, truth = simulate(students=120, questions=30, skills=6, concepts=3, answers_per_student=20, seed=1)
    folder = tmp_path / "data"
    folder.mkdir()
    write_school(answers, truth, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "course"))
    monkeypatch.setattr(sys, "argv", ["a_script.py", "--n_epochs", "1"])
    yield
    for name in ("args", "dkt_lightning"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("code", "where"), code_blocks("python"))
def test_python_block_runs(reader, code, where):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(log_every_n_steps|bf16).*")  # a small school, and no GPU
        exec(compile(code, where, "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize(("code", "where"), code_blocks("sh"))
def test_shell_block_runs(reader, code, where):
    """Of `make` targets and pytest it is seen that they exist, as this may run inside them; everything else is run."""
    for line in code.splitlines():
        command = shlex.split(line, comments=True)
        if not command:
            continue
        if command[0] in ("make", ".ci/run"):
            assert command[0] == "make" or os.access(ROOT / command[0], os.X_OK), f"{where}: {line}"
            command = ["make", "-n", *command[1:]]
            folder = ROOT
        elif "pytest" in command:  # this very test would be among them
            assert all((ROOT / word).exists() for word in command if word.startswith("tests/")), f"{where}: {line}"
            continue
        else:
            assert command[0] in ("python", ".venv/bin/python"), f"{where}: {line}"
            command[0] = sys.executable
            folder = Path.cwd()
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, f"{where}: {line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def test_code_blocks_say_what_they_are():
    unknown = {f"{path.name}: {found[1]!r}" for path, found in found_in_documents(BLOCK) if found[1] not in LANGUAGES}
    assert not unknown


def test_links_lead_to_files_of_this_repository_or_to_https():
    broken = []
    for path, found in found_in_documents(LINK):
        target, _, anchor = found[1].partition("#")
        if target.startswith("https://"):
            continue
        place = (path.parent / target).resolve() if target else path
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(f"{path.name}: {found[1]}")
    assert not broken


def anchors(document):
    """The names by which headings can be linked to."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_and_tests_that_are_named_exist():
    absent = []
    for path, found in found_in_documents(TEST):
        place = ROOT / found[1]
        if not place.exists() or (found[2] and f"def {found[2]}(" not in place.read_text(encoding="utf-8")):
            absent.append(f"{path.name}: {found[0]}")
    assert not absent


def test_both_readmes_show_the_same_code():
    english, korean = (
        BLOCK.findall((ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "README.ko.md")
    )
    assert [block for block in english if block[0] != "text"] == [block for block in korean if block[0] != "text"]


def test_no_path_of_a_machine_is_shown():
    absolute = re.compile(r"""(?:^|[\s`"'(=])(/[a-z]+/[^\s`"')]*)""", re.MULTILINE)
    assert absolute.findall("cd /any/folder and `/any/file`") == ["/any/folder", "/any/file"]
    shown = [(path.name, found) for path in DOCUMENTS for found in absolute.findall(path.read_text(encoding="utf-8"))]
    assert not shown


@pytest.mark.slow
@pytest.mark.parametrize("target", ["train", "course"])
def test_make_target_does_what_the_readme_says(target, tmp_path):
    """The target's own commands, run by this Python in an empty folder."""
    listed = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    printed = ""
    for line in listed.replace("\\\n", " ").splitlines():
        command = shlex.split(line)
        if command[0] == ".venv/bin/python" and ".ci/install.py" not in command:
            command[0] = sys.executable
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=290)
            assert done.returncode == 0, done.stderr
            printed += done.stdout
    if target == "course":
        lines = (tmp_path / "outputs" / "submission.csv").read_text().splitlines()
        assert lines[0] == "id,prediction"
        assert f"{len(lines) - 1} predictions written to outputs/submission.csv" in printed
    else:
        assert "AUC" in printed
        assert "optimum" in printed


@pytest.mark.parity
def test_table_of_reasons_is_what_the_probes_find():
    command = [sys.executable, str(ROOT / "benchmarks" / "reasons_to_leave.py"), "--table"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=250)
    for name in ("README.md", "README.ko.md"):
        rows = [line.split("|")[2:] for line in done.stdout.strip().splitlines()[2:]]
        shown = (ROOT / name).read_text(encoding="utf-8")
        missing = ["|".join(row) for row in rows if "|".join(row) not in shown]
        assert not missing
