"""The standard library of quantization for plugin authors: plain NumPy."""
