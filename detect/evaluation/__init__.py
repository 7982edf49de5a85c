"""Detections to numbers: COCO metrics, matching, bootstrap, error types, diagnostics."""
