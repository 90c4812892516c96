"""screen: many ligands, some of them bad, in processes of which some die."""

from __future__ import annotations

import csv
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiered_files import LIGAND, posed, write_files

pytest.importorskip("rdkit")
pytest.importorskip("biotite")
from rdkit import Chem

from pykernels.tiered import _screen, _workers
from pykernels.tiered._constants import Schedule
from pykernels.tiered._screen import screen

TINY = dict(
    n=2, radius=5.0, schedule=Schedule(ligand_steps=2, frozen_steps=2, relax_steps=4, decay_step=2, final_steps=0)
)


@pytest.fixture
def files(tmp_path):
    """A protein, and five ligands: the second far away, the fourth with an atom of five bonds."""
    protein, _ = write_files(tmp_path)
    around = Chem.MolFromPDBFile(str(protein)).GetConformer().GetPositions()
    blocks = []
    for number, smiles in enumerate((LIGAND, "c1ccccc1O", "CCO", "CC(C)(C)C", "CCCN")):
        molecule = posed(smiles, around)
        molecule.SetProp("_Name", f"ligand/{number}")
        if number == 1:
            molecule.GetConformer().SetPositions(molecule.GetConformer().GetPositions() + 100.0)
        block = Chem.MolToMolBlock(molecule)
        blocks.append(block.replace("  1  2  1  0", "  1  2  3  0", 1) if number == 3 else block)
    ligands = tmp_path / "ligands.sdf"
    ligands.write_text("$$$$\n".join(blocks) + "$$$$\n")
    return protein, ligands


def table(folder):
    with open(folder / "screen.csv") as file:
        return list(csv.DictReader(file))


def test_a_failed_ligand_is_reported_and_skipped_and_finished_ones_are_not_repeated(files, tmp_path, monkeypatch):
    out, notes = tmp_path / "out", []
    with ThreadPoolExecutor(1) as engine:
        rows = screen(*files, out=out, engine=engine, progress=lambda *note: notes.append(note), **TINY)
    assert [row["status"] for row in rows] == ["done", "failed", "done", "failed", "done"]
    assert "expected at most 6" in rows[1]["message"] and "Explicit valence" in rows[3]["message"]
    assert notes[0][:2] == (0, 5) and notes[-1] == (5, 5, "ligand/4")
    assert [row["name"] for row in table(out)] == [f"ligand/{i}" for i in range(5)]
    assert float(table(out)[0]["total"]) == pytest.approx(rows[0]["total"])
    assert (out / rows[0]["poses"]).name == "00000_ligand_0.pdb" and (out / rows[0]["poses"]).exists()

    made = []
    monkeypatch.setattr(_screen, "one", lambda job: made.append(job["number"]) or {**job, "status": "again"})
    with ThreadPoolExecutor(1) as engine:
        again = screen(*files, out=out, engine=engine, **TINY)
        assert made == [1, 3] and again[0] == rows[0]
        screen(*files, out=out, engine=engine, **{**TINY, "n": 3})
    assert made[2:] == [0, 1, 2, 3, 4]


def test_spawned_processes_share_the_ligands(files, tmp_path):
    rows = screen(*files, out=tmp_path / "out", workers=2, **TINY)
    assert [row["status"] for row in rows] == ["done", "failed", "done", "failed", "done"]
    with ThreadPoolExecutor(1) as engine:
        same = screen(*files, out=tmp_path / "same", engine=engine, **TINY)
    assert [row.get("total") for row in rows] == [row.get("total") for row in same]


def job(number):
    """What the pool runs: job 1 dies, job 3 raises."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        raise ValueError("three")
    return number * number


def test_a_killed_process_costs_its_own_job_only():
    results = dict(_workers.run(job, [(number,) for number in range(6)], workers=2, threads=1))
    assert str(results.pop(1)) == "the process died (SIGKILL; out of memory?)"
    assert str(results.pop(3)) == "ValueError: three"
    assert results == {0: 0, 2: 4, 4: 16, 5: 25}


def slow(number, folder):
    try:
        time.sleep(number)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        raise
    return number


def test_an_interrupt_stops_the_processes(tmp_path):
    results = _workers.run(slow, [(0, tmp_path), (100, tmp_path)], workers=1, threads=1)
    assert next(results) == (0, 0)
    time.sleep(0.5)
    begin = time.monotonic()
    results.close()
    assert time.monotonic() - begin < 20 and (tmp_path / "interrupted").exists()


def test_ray_like_futures_and_lost_workers_and_bad_options(files, tmp_path):
    class Future:
        def result(self):
            raise RuntimeError("worker lost")

    class Engine:
        def submit(self, function, *arguments):
            return Future()

    rows = screen(*files, out=tmp_path / "out", engine=Engine(), **TINY)
    assert {row["message"] for row in rows} == {"worker lost"} and len(table(tmp_path / "out")) == 5
    bad = [
        (dict(steps=3), TypeError, "steps=3: expected one of the options n, radius"),
        (dict(forcefield="system.xml"), ValueError, "forcefield='system.xml': expected 'builtin'"),
        (dict(workers=0), ValueError, "workers=0"),
        (dict(engine=3), TypeError, "engine is a int"),
    ]
    for change, kind, message in bad:
        with pytest.raises(kind, match=message):
            screen(*files, out=tmp_path / "none", **change)
    with pytest.raises(ValueError, match="ligands is empty"):
        screen(files[0], [], out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
