"""Attacks that aim at the gates of a ConvNet-AIG: compute, routes, and misclassification with or through them."""
