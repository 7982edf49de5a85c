"""For notebooks and programs: load a detector from any file, give it images, get detections."""

from detect.deploy.inference import Detector, Prediction

__all__ = ["Detector", "Prediction"]
