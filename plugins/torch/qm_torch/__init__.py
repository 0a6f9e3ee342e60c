"""PyTorch: loading, quantizing, compiling and running what torch.export captures."""
