"""Weights in ``.safetensors`` files, of any size, for whatever framework reads them."""
