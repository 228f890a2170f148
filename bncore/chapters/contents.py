"""The chapters and the pages under them in reading order, and what each is called.

It is called so in the table of contents and in its title.
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
    "practice/placement": "Placement and tuning",
    "practice/small_batches": "Small batches",
    "practice/fine_tuning": "Fine-tuning",
    "practice/diagnosis": "Diagnosis",
}

PAGES = {
    "explanations/smoothness": {
        "explanations/spectrum": "The whole spectrum",
    },
    "explanations/depth": {
        "explanations/unlike_examples": "Unlike examples",
    },
    "convergence/neural_networks": {
        "convergence/deep_network": "A deep network",
    },
    "practice/placement": {
        "practice/tuning": "Tuning",
    },
    "practice/diagnosis": {
        "practice/symptoms": "Symptoms",
    },
}
"""For a chapter the pages under it, which hold what it has no room for. A page has no package, module or claims of its own."""


def titles() -> dict[str, str]:
    """Return what every chapter is called, each followed by the pages under it."""
    return {
        name: title
        for chapter in TITLES
        for name, title in ({chapter: TITLES[chapter]} | PAGES.get(chapter, {})).items()
    }


def chapter_of(page: str) -> str:
    """Return the chapter under which a page stands; what is no such page is returned as it is."""
    return next((chapter for chapter, pages in PAGES.items() if page in pages), page)
