"""What the page of a report says of its pictures and numbers."""

from __future__ import annotations

CAPTIONS: dict[str, tuple[str, str]] = {
    "overview": (
        "Measured (dots) and predicted (lines, triangles)",
        "A panel for each arm, a colour for each of a few questions, from hard to easy. The scale is stretched near 0 "
        "and 1. Dashed lines, of questions that oscillate, are predicted from the dot before. Triangles are predicted "
        "ends, where the theory says no more than that.",
    ),
    "trajectories": (
        "A few questions from hard to easy, and all of them",
        "Left: each colour is a question, dots are measured, lines are predicted. The scale is stretched near 0 and "
        "1. Dashed lines, of questions that oscillate, are predicted from the dot before. Right: measured − predicted; "
        "the bands hold half and 95 % of the questions.",
    ),
    "flow": (
        "A few questions from hard to easy",
        "Each colour is a question, dots are measured; the triangle at the end is the predicted p*. The dotted line is "
        "fitted with one number κ, it is no prediction. The scale is stretched near 0 and 1.",
    ),
    "p_infinity": (
        "Where the questions end",
        "Left: every dot is a question; on the grey line it ended where it should. Right: the same over the success "
        "before training.",
    ),
    "one_step": (
        "One step",
        "The success after a step over that before it, dots on the predicted curve. Where the curve falls steeply "
        "through the grey line, the question oscillates.",
    ),
    "error": (
        "Why measured and predicted differ",
        "The error of one step in each iteration, over all questions, and its causes.",
    ),
}

SPLIT = {
    True: "Causes of the error of one step, which add up: what the step's samples say beside their expectation; what "
    "the inner loop had not reached when it stopped; the rest.",
    False: "Causes of the error of one step, as far as they can be told apart: what chance is expected to make; what "
    "an inner loop that stopped early can have left, at most (Pinsker's inequality); the rest, at least. Their squares "
    "add up.",
}


FATES = {
    "fixed_point": "settle",
    "one": "go to 1",
    "cycle": "oscillate",
    "irregular": "keep wandering",
    "undecided": "are not settled after very many steps",
}
