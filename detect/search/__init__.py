"""Networks for a latency budget: which widths they have, tables of latency over these, searches."""
