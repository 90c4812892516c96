"""Force fields from OpenMM: energies of every force and forces against OpenMM's Reference platform, and refusals."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import numpy as np
import pytest

mm = pytest.importorskip("openmm")

from openmm import app, unit  # noqa: E402

from pykernels.tiered.energy import ForceField  # noqa: E402
from pykernels.tiered.energy._openmm import describe, fixed_atoms_of  # noqa: E402

KCAL = unit.kilocalorie_per_mole


@cache
def villin():
    """Villin's headpiece, which comes with OpenMM, and coordinates in angstrom.

    Without water, ions and ends: OpenMM takes a minute to match the ends with CHARMM's patches.
    """
    pdb = app.PDBFile(f"{app.__path__[0]}/data/test.pdb")
    model = app.Modeller(pdb.topology, pdb.positions)
    model.deleteWater()
    residues = list(model.topology.residues())
    model.delete([residues[0], *residues[34:]])
    x = np.array(model.positions.value_in_unit(unit.angstrom))
    return model.topology, x + np.random.default_rng(3).normal(size=x.shape) * 0.05


@cache
def made(name):
    return app.ForceField(name).createSystem(villin()[0], ignoreExternalBonds=True)


def system_of(name, cutoff=None):
    system = deepcopy(made(name))
    for force in system.getForces():
        if cutoff is not None and hasattr(force, "setCutoffDistance"):
            force.setNonbondedMethod(force.CutoffNonPeriodic)
            force.setCutoffDistance(cutoff)
    return system, *villin()


def energies_of(system, x):
    """The energy of each of OpenMM's forces by name, kcal/mol, and dE/dx."""
    for number, force in enumerate(system.getForces()):
        force.setForceGroup(number)
    here = mm.Context(system, mm.VerletIntegrator(1.0), mm.Platform.getPlatformByName("Reference"))
    here.setPositions(x / 10)
    energies = dict.fromkeys((force.getName() for force in system.getForces()), 0.0)
    for number, force in enumerate(system.getForces()):
        state = here.getState(getEnergy=True, groups={number})
        energies[force.getName()] += state.getPotentialEnergy().value_in_unit(KCAL)
    forces = here.getState(getForces=True).getForces(asNumpy=True)
    return energies, -forces.value_in_unit(KCAL / unit.angstrom)


def agree(system, x, topology=None, **fields):
    """Assert that terms are sums of OpenMM's forces of these names, and the gradient all of them."""
    energies, gradient = energies_of(system, x)
    terms, found = ForceField.from_openmm(system, topology).energy_and_gradient(x, backend="reference")
    for term, names in fields.items():
        value = sum(terms[name] for name in term.split("_and_"))
        assert value == pytest.approx(sum(energies[name] for name in names), rel=1e-9, abs=1e-9), term
    assert float(terms["total"]) == pytest.approx(sum(energies.values()), rel=1e-9, abs=1e-9)
    assert np.linalg.norm(found - gradient) <= 1e-9 * np.linalg.norm(gradient)


@pytest.mark.parametrize("cutoff", [None, 0.7])
@pytest.mark.parametrize("name", ["charmm36.xml", "charmm36_2024.xml", "amber14-all.xml", "amber19-all.xml"])
def test_peptides(name, cutoff):
    system, topology, x = system_of(name, cutoff)
    fields = {"bond": ["HarmonicBondForce"], "angle": ["HarmonicAngleForce"], "dihedral": ["PeriodicTorsionForce"]}
    if "amber14" not in name:
        fields["cmap"] = ["CMAPTorsionForce"]
    if "charmm" in name:
        fields |= {"improper": ["CustomTorsionForce"], "lj": ["LennardJones", "LennardJones14"]}
        fields |= {"coulomb": ["NonbondedForce"]}
    else:
        fields["lj_and_coulomb"] = ["NonbondedForce"]
    agree(system, x, topology, **fields)


def test_a_force_field_of_float32_and_of_a_batch():
    system, topology, x = system_of("charmm36.xml")
    energies, gradient = energies_of(system, x)
    terms, found = ForceField.from_openmm(system, topology).energy_and_gradient(np.stack([x, x]).astype(np.float32))
    np.testing.assert_allclose(terms["total"], sum(energies.values()), rtol=3e-5)
    assert np.linalg.norm(found[1] - gradient) <= 1e-4 * np.linalg.norm(gradient)


def chain(n_atoms=6):
    """A system of atoms without forces, and coordinates."""
    system = mm.System()
    for atom in range(n_atoms):
        system.addParticle(0.0 if atom == 2 else 12.0)
    return system, np.random.default_rng(5).normal(size=(n_atoms, 3)) + 1.3 * np.arange(n_atoms)[:, None]


def with_torsions(force, *parameters):
    for first, values in enumerate(parameters):
        force.addTorsion(*range(first, first + 4), *values)
    return force


def with_names(force, *names):
    for name in names:
        force.addPerTorsionParameter(name)
    return force


def one(force):
    system, x = chain()
    system.addForce(force)
    return system, x


def test_torsions():
    rows = [(n, phase, 3.0 + n) for n in (1, 2, 3) for phase in (0.0, np.pi, -np.pi)]
    rows += [(5, np.pi, 2.0), (6, 0.0, 1.5), (4, 1.2, 2.5), (1, -0.3, 2.5), (3, np.pi - 1e-5, 4.0)]
    force = mm.PeriodicTorsionForce()
    for number, row in enumerate(rows):
        first = number % 3
        force.addTorsion(*(first + np.arange(4)).tolist()[:: 1 if number % 2 else -1], *row)
    agree(*one(force), dihedral=["PeriodicTorsionForce"])
    rows = (1.0, 2.0, -3.0, 4.0, 5.0, -6.0), (0.5, 0, 0, 7.0, 0, 0)
    agree(*one(with_torsions(mm.RBTorsionForce(), *rows)), dihedral=["RBTorsionForce"])


@pytest.mark.parametrize(
    "energy",
    [
        "k*(theta-theta0)^2",
        "k * min(dtheta, 2*pi-dtheta)^2; dtheta = abs(theta-theta0);pi = 3.14159265358979;",
        f"k*min(dtheta, 2*{np.pi}-dtheta)^2; dtheta = abs(theta-theta0)",
        "0.5*k*(thetap-theta0)^2; thetap = step(-(theta-theta0+pi))*2*pi+theta+step(theta-theta0-pi)*(-2*pi); "
        f"pi = {np.pi:.15g}",
    ],
)
def test_harmonic_impropers(energy):
    whole = [-3.0, 2.9, 0.2] if "step" in energy or "min" in energy else [0.0, 0.0, 0.0]
    force = with_names(mm.CustomTorsionForce(energy), "theta0", "k")
    agree(*one(with_torsions(force, *(((theta0, 3.0),) for theta0 in whole))), improper=["CustomTorsionForce"])


def test_maps_of_several_forces():
    system, x = chain()
    for seed in (0, 1):
        force = mm.CMAPTorsionForce()
        for each in range(2):
            force.addMap(6, np.random.default_rng(2 * seed + each).normal(size=36).tolist())
            force.addTorsion(each, *range(4), *range(1, 5))
        system.addForce(force)
    force.addTorsion(1, 1, 2, 3, 4, 2, 3, 4, 5)
    agree(system, x)


def test_lennard_jones_by_tables_and_products():
    products = mm.CustomNonbondedForce("A1*A2/r^12-C1*C2/r^6")
    squares = mm.CustomNonbondedForce("(a/r6)^2-b/r6; r6=r^6;a=acoef(type1, type2);b=bcoef(type1, type2)")
    for name in ("C", "A"):
        products.addPerParticleParameter(name)
    squares.addPerParticleParameter("type")
    for name, values in (("acoef", [1e-3, 2e-3, 2e-3, 0]), ("bcoef", [1e-2, 3e-2, 3e-2, 0])):
        squares.addTabulatedFunction(name, mm.Discrete2DFunction(2, 2, values))
    close = mm.CustomBondForce("-C/r^6+A/r^12")
    for name in ("C", "A"):
        close.addPerBondParameter(name)
    close.addBond(0, 3, (2e-2, 1e-5))
    close.addBond(3, 0, (1e-2, 2e-5))
    for atom in range(6):
        products.addParticle((0.1 + 0.01 * (atom % 2), 1e-3))
        squares.addParticle((atom % 2,))
    for custom in (products, squares):
        custom.addExclusion(1, 0)
        system, x = chain()
        system.addForce(custom)
        system.addForce(close)
        agree(system, x, lj=["CustomNonbondedForce", "CustomBondForce"])
        close = mm.CustomBondForce("2*epsilon*((sigma/r)^12-(sigma/r)^6)")
        for name in ("sigma", "epsilon"):
            close.addPerBondParameter(name)
        close.addBond(0, 3, (0.3, 0.5))


def test_atoms_without_mass_are_the_fixed_ones():
    assert fixed_atoms_of(chain()[0]).tolist() == [2]


def periodic():
    force = mm.NonbondedForce()
    force.setNonbondedMethod(force.PME)
    return force


def switched():
    force = mm.NonbondedForce()
    force.setNonbondedMethod(force.CutoffNonPeriodic)
    force.setUseSwitchingFunction(True)
    for _ in range(6):
        force.addParticle(0.0, 0.3, 0.1)
    return force


def offset():
    force = mm.NonbondedForce()
    force.addGlobalParameter("lambda", 1.0)
    force.addParticleParameterOffset("lambda", 0, 1.0, 0.0, 0.0)
    return force


def apart():
    force = mm.CMAPTorsionForce()
    force.addMap(2, [0.0] * 4)
    force.addTorsion(0, 0, 1, 2, 3, 0, 1, 2, 3)
    return force


def wrapped():
    force = mm.RBTorsionForce()
    force.setUsesPeriodicBoundaryConditions(True)
    return force


@pytest.mark.parametrize(
    ("force", "message"),
    [
        (mm.GBSAOBCForce, "GBSAOBCForce 'GBSAOBCForce': has no counterpart here; remove it"),
        (mm.DrudeForce, "DrudeForce"),
        (lambda: mm.MonteCarloBarostat(1.0, 300.0), "MonteCarloBarostat"),
        (lambda: mm.CustomExternalForce("x"), "CustomExternalForce"),
        (lambda: mm.CustomBondForce("k*r"), "CustomBondForce 'CustomBondForce': energy 'k\\*r'"),
        (lambda: with_names(mm.CustomTorsionForce("k*theta^2"), "k"), "energy 'k\\*theta\\^2' of k is not"),
        (lambda: with_names(mm.CustomTorsionForce("k*(theta-theta0)^2"), "k"), "of k is not"),
        (lambda: mm.CustomNonbondedForce("exp(-r)"), "energy 'exp\\(-r\\)'"),
        (periodic, "NonbondedForce 'NonbondedForce': is periodic"),
        (wrapped, "RBTorsionForce 'RBTorsionForce': is periodic"),
        (switched, "switching function"),
        (offset, "parameter offsets"),
        (apart, "do not share three atoms"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(force, message):
    with pytest.raises(NotImplementedError, match=message):
        describe(one(force())[0])


def test_systems_that_do_not_fit_are_refused():
    topology, _ = villin()
    with pytest.raises(TypeError, match=r"system is Topology: expected an openmm.System"):
        describe(topology)
    system, _ = chain()
    with pytest.raises(ValueError, match="topology has 540 atoms: expected 6"):
        describe(system, topology)
    system.addConstraint(4, 1, 0.1)
    with pytest.raises(ValueError, match=r"1 constraints, the first between atom 4 and atom 1: .*constraints=None"):
        describe(system)
    system, _ = chain()
    system.setVirtualSite(5, mm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    with pytest.raises(NotImplementedError, match="virtual site, atom 5"):
        describe(system)
    system, topology, _ = system_of("amber14-all.xml")
    system.addConstraint(0, 1, 0.1)
    with pytest.raises(ValueError, match=r"between N of SER 2 in chain .* and H of SER 2 .*rigidWater=False"):
        describe(system, topology)


def test_nonbonded_forces_must_go_together():
    def nonbonded(epsilon=0.0):
        force = mm.NonbondedForce()
        for _ in range(6):
            force.addParticle(0.1, 0.3, epsilon)
        return force

    custom = mm.CustomNonbondedForce("A1*A2/r^12-C1*C2/r^6")
    for name in ("A", "C"):
        custom.addPerParticleParameter(name)
    for _ in range(6):
        custom.addParticle((1e-3, 1e-2))
    twice, both = (nonbonded(), nonbonded()), (nonbonded(1.0), custom)
    for forces, message in ((twice, "second force of its class"), (both, "beside that of a NonbondedForce")):
        system, _ = chain()
        for force in forces:
            system.addForce(deepcopy(force))
        with pytest.raises(NotImplementedError, match=message):
            describe(system)
    custom.addExclusion(0, 1)
    system, _ = one(nonbonded())
    system.addForce(custom)
    with pytest.raises(NotImplementedError, match="excludes other pairs"):
        describe(system)
