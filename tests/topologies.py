"""All small networks on which the structure of a network is put to the test, by name."""

from __future__ import annotations

from tests.topologies_branches import BRANCHES
from tests.topologies_chains import CHAINS
from tests.topologies_groups import GROUPS
from tests.topologies_sequences import SEQUENCES
from tests.topologies_tricks import TRICKS
from tests.topology import Topology

TOPOLOGIES: dict[str, type[Topology]] = {
    kind.__name__: kind for kind in (*CHAINS, *BRANCHES, *GROUPS, *SEQUENCES, *TRICKS)
}
