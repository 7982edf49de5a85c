"""Which anchor is positive for which ground-truth box."""
