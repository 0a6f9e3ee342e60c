"""TensorFlow, Keras and LiteRT for qm."""
