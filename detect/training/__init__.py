"""The step and the run. Knows no export."""
