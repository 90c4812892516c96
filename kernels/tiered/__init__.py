"""The tiered tensor transform (3T, arXiv 2301.00984), and the energies that drive it.

transform. N points x, some of which belong to G groups of rigid motion, some of those to M macro-groups.
For each of B conformations, in this order:

1. axis rotation. Group g, if it has an axis, turns by `axis` about the line through the points A =
   `axis_anchor` (outside g) and C = `axis_bonded` (inside g), both as they were before any rotation: all
   axis rotations are simultaneous. With u = (C - A) / |C - A|, r = x - A, z = (r.u) u:
   x' = A + z + (r - z) cos(axis) + u x (r - z) sin(axis).
2. group. y = R(euler) (x' - mean) + mean + translation, where mean is that of the group's x' and
   R(a, b, c) = Rz(a) Ry(b) Rx(c).
3. macro-group. z = R(macro_euler) (y - pivot) + pivot + macro_translation, where pivot is the mean of the
   y of the point's own group ("micro", as published) or of its whole macro-group ("macro"). A group in no
   macro-group, macro_of_group = -1, stays as it is.

Points of no group stay where they are. No angle is special: a rotation by 0 and its gradient are finite, a
group of one point turns about itself, a point on its axis stays on it. A point that is not finite makes its
group so.

transform_backward is the transposed Jacobian applied to g = dE/dz, in closed form. A rotation y = R (x - m)
+ m + t of a set of n points with mean m needs F = sum g and W = sum (x - m) g^T only: dE/dt = F,
dE/dangle = sum_ij (dR/dangle)_ij W_ji, dE/dx = R^T g + (F - R^T F) / n. An axis rotation passes gradients
to A and C as well. The gradient with respect to `fixed` points is zero, also where they are anchors.

energy. E(x) is a sum of terms, each accumulated in float64, kcal/mol and angstrom; gradient is dE/dx.

    bond       k (r - r0)^2
    angle      k (theta - theta0)^2 + k_ub (r13 - r_ub)^2
    dihedral   sum_n A_n cos^n(phi), n = 0..5, and K (1 + cos(n phi - d))
    improper   k (phi - ref)^2
    cmap       bicubic in (phi, psi)
    lj         4 eps ((s/r)^12 - (s/r)^6) for r < lj_cutoff
    coulomb    q q (1/r + k_rf r^2 - c_rf) for r < coulomb_cutoff
    vina       the intermolecular terms of AutoDock Vina (Trott, Olson 2010)
    mmff       MMFF94 strain (Halgren 1996)

The cosine of a dihedral 0-1-2-3 is that between v12 x v32 and v43 x v32, where v12 = x0 - x1, v32 = x2 - x1
and v43 = x3 - x2: 1 for cis, -1 for trans.
Cosines are clamped to +-cos_limit, where their gradient is zero. Unless `signed`, phi = acos(cos phi), as
published; if `signed`, phi in (-pi, pi] is IUPAC's, and an improper's deviation is wrapped into that range.

Pairs closer than 0.01 angstrom are taken to be 0.01 apart, in value and in the factor of the gradient,
which keeps float32 finite and a coincidence of atoms free of NaN. Excluded pairs contribute exactly
nothing. A pair of two fixed atoms is left out: it is a constant, which the caller adds.

adam (Kingma, Ba 2014) with bias correction, element by element: m = b1 m + (1 - b1) g,
v = b2 v + (1 - b2) g^2, p -= rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon), g clipped to +-clip.
"""
