"""`zerohop bench`: what zerohop gains or costs on this machine, against the same programs without it.

One *cell* is a workload's case in a topology and a placement; a cell runs for some *rounds*, each of which
runs every *mode* once, back to back, so that a ratio only compares neighbours in time. The registries to
extend are `workloads.WORKLOADS`, `modes.MODES`, `topology.TOPOLOGIES` and `placement.PLACEMENTS`.
"""
