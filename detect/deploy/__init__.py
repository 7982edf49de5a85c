"""One file, any runtime: export, verification, prediction, validation, latency. Knows no training."""
