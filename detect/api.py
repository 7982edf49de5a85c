"""For notebooks and programs: load a detector from any file, give it images, get detections."""

from detect.deploy.inference import Detector
from detect.deploy.prediction import Prediction

__all__ = ["Detector", "Prediction"]
