"""The chapters in reading order, and what each is called: as in the table of contents and the titles.

An installed package sees neither. Chapters never import this, only what speaks of the whole book.
"""

TITLES = {
    "front/start": "Batch norm in ten minutes",
    "mechanics/scaling": "Feature scaling",
    "mechanics/forward": "Forward",
    "mechanics/backward": "Backward",
    "mechanics/inference": "Inference",
    "explanations/why": "Why does it work?",
    "explanations/covariate_shift": "Covariate shift",
    "explanations/scale_invariance": "Scale invariance",
    "explanations/smoothness": "Smoothness",
    "explanations/depth": "Depth",
    "explanations/noise": "Noise",
    "convergence/decoupling": "Decoupling",
    "convergence/least_squares": "Least squares",
    "convergence/halfspaces": "Halfspaces",
    "convergence/neural_networks": "Neural networks",
}
