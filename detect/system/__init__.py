"""The machine: memory, cores, devices, ranks, files."""
