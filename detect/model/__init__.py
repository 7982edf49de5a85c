"""Images in, detections out; no Lightning."""
