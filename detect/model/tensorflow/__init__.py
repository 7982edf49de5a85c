"""Files of TensorFlow and Keras, read without TensorFlow."""
