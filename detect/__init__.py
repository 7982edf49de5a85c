"""Training, comparing and shipping SSDLite object detectors."""
