"""``pykernels conformations`` and ``pykernels screen``."""

from __future__ import annotations

import csv
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiered_files import write_files

pytest.importorskip("rdkit")
pytest.importorskip("biotite")

import pykernels
from pykernels.cli import main
from pykernels.cli.conformations import _Report

SMALL = ["--radius", "5", "--ligand-steps", "2", "--frozen-steps", "2", "--relax-steps", "20", "--decay-step", "10"]
KEEP = ["--distance", "0", "--window", "1e9"]


@pytest.fixture
def files(tmp_path):
    return [str(path) for path in write_files(tmp_path)]


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_conformations_writes_and_resumes(files, tmp_path, capsys):
    out = tmp_path / "poses.pdb"
    assert main(["conformations", *files, "--out", str(out), "--n", "2", *KEEP, *SMALL]) == 0
    assert "kept 2 of 2 conformations" in capsys.readouterr().out
    first = table(out.with_suffix(".csv"))
    assert main(["conformations", *files, "--out", str(out), "--n", "3", *KEEP, "--resume", *SMALL]) == 0
    assert [row["total"] for row in table(out.with_suffix(".csv"))][:2] == [row["total"] for row in first]
    assert main(["conformations", *files, "--out", str(out), "--resume", "--seed", "9", *SMALL]) == 1
    assert "seed was 0, is 9" in capsys.readouterr().err


def test_ctrl_c_leaves_what_is_finished(files, tmp_path):
    out = tmp_path / "poses.pdb"
    command = [sys.executable, "-m", "pykernels", "conformations", *files, "--out", str(out), "--batch", "1", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(Path(pykernels.__file__).parent.parent)}
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which background jobs of a shell ignore
    process = subprocess.Popen(
        [*command, "--n", "100000"], stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed
    )
    try:
        deadline = time.monotonic() + 300
        while not out.with_suffix(".npz").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "interrupted: finished conformations are in" in errors and "Traceback" not in errors
    done = table(out.with_suffix(".csv"))
    assert done and out.read_text().endswith("END\n")
    assert main([*command[3:], "--n", str(len(done) + 1), "--resume"]) == 0
    assert table(out.with_suffix(".csv"))[0]["total"] == done[0]["total"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["missing.pdb"], "missing.pdb does not exist"),
        (["--n", "0"], "n=0: expected an integer at least 1"),
        (["--rate", "-1"], "rate=-1.0: expected a number that is finite and at least 0"),
        (["--ligand-index", "7"], "ligand_index=7: expected one of the 1 molecules"),
        (["--forcefield", "charmm"], "forcefield='charmm': expected 'builtin'"),
        (["--out", "poses.mol"], "expected a file name that ends in .pdb"),
    ],
)
def test_bad_input_is_one_line(files, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    given = [change[0], files[1]] if len(change) == 1 else [*files, *change]
    assert main(["conformations", *given]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and sorted(tmp_path.iterdir()) == before


def test_screen_reports_failures(files, tmp_path, capsys):
    text = Path(files[1]).read_text()
    both = tmp_path / "both.sdf"
    both.write_text(text + text.replace("LG1", "BAD").replace(" O   0", " Qq  0", 1))
    folder = tmp_path / "screened"
    assert main(["screen", files[0], str(both), "--out", str(folder), "--workers", "1", "--n", "1", *SMALL]) == 1
    captured = capsys.readouterr()
    assert "FAILED BAD: " in captured.err and "unknown element 'Qq'" in captured.err
    assert "1 of 2 ligands done" in captured.out and [row["kept"] for row in table(folder / "screen.csv")] == ["1", ""]


def test_a_system_must_be_of_the_files_atoms(files, tmp_path, capsys):
    openmm = pytest.importorskip("openmm")
    from pykernels.tiered._structures import read_complex

    complex_ = read_complex(*files)
    masses = [{"H": 1.0, "C": 12.0, "N": 14.0, "O": 16.0, "S": 32.0}[element] for element in complex_.element]
    xml = tmp_path / "system.xml"

    def message(masses):
        system = openmm.System()
        for mass in masses:
            system.addParticle(mass)
        xml.write_text(openmm.XmlSerializer.serialize(system))
        out = str(tmp_path / "poses.pdb")
        assert main(["conformations", *files, "--forcefield", str(xml), "--out", out, "--n", "1", *SMALL]) == 1
        return capsys.readouterr().err

    assert "2 hydrogens and 0 other atoms are missing in the files, the first after N of GLY 1 in chain A" in message(
        [masses[0], 1.0, 1.0, *masses[1:]]
    )
    assert "2 atoms of the files are not in the System, the first is H" in message(masses[:-2])
    assert "particle 1 of" in message([*masses[:1], 16.0, *masses[2:]])
    xml.write_text("<nothing>")
    assert main(["conformations", *files, "--forcefield", str(xml), "--out", str(tmp_path / "poses.pdb")]) == 1
    assert "is no serialized OpenMM System" in capsys.readouterr().err


def test_time_left_is_told(monkeypatch):
    class Bar:
        done, total, notes = 0, 1, []

        def show(self, note):
            self.notes.append(note)

    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("pykernels.cli.conformations.time.monotonic", lambda: next(clock))
    report = _Report(Bar())
    report(0, 100, "reading")
    report(25, 100, "settling")
    assert Bar.notes[-1] == "settling, 30 s left"
