"""``pykernels list``."""

from __future__ import annotations

from pykernels.families import FAMILIES, backends_here


def listing() -> int:
    """Print every family with its public functions and papers, then the backends of this machine."""
    for family in FAMILIES.values():
        print(f"{family.name}: {family.summary}")
        print(f"  module     {family.module}")
        print(f"  functions  {', '.join(family.functions)}")
        for paper in family.papers:
            print(f"  paper      {paper.title} ({paper.identifier})")
        print()
    print("backends here")
    for backend, state in backends_here().items():
        print(f"  {backend:<10} {state}")
    return 0
