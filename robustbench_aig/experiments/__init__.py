"""The paper's tables and figures about gates and their cost: one experiment per module.

Importing this imports no torch and no matplotlib.
"""

EXPERIMENTS: dict[str, str] = {
    "rates": "how often each layer runs for each class, classes by category (Fig. 6)",
    "training": "execution rates over the epochs of training (Fig. 7)",
    "layers": "distribution of the number of executed layers, by category (Fig. 8)",
    "extremes": "the images that use the fewest and the most layers (Fig. 9)",
    "thresholds": "accuracy and multiply-adds at T = 0.1 … 0.9 (Fig. 5)",
    "costs": "error against multiply-adds of several models (Tables 1 and 2, Fig. 4)",
    "graphs": "how many gates must flip before an image is misclassified, over all its graphs",
    "claims": "the paper's statements about gates, each held, not held or undecided",
}
"""What ``analyze`` can do: name and summary."""
