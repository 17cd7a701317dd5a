"""What the operator costs in a cluster that is full: many runs of which a part works, releases, cycles, nodes and pods."""
