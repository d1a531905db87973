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
    "single_questions": (
        "Questions drawn at random",
        "A panel for each question: dots are measured, the line is predicted from its p_ref, and 95 % of the "
        "predicted runs lie in the band. It holds what is not known of p_ref where that was counted, the chance of "
        "sampled groups, the tolerance of the inner loop, and the count where p is counted; nothing in it is fitted. "
        "Bars are 95 % intervals of counts. Diamonds are outside the band, also where they miss it by too little to "
        "be seen.",
    ),
    "one_step": (
        "One step",
        "The success after a step over that before it, dots on the predicted curve. Where the curve falls steeply "
        "through the grey line, the question oscillates.",
    ),
    "lengths": (
        "How long the answers become",
        "How much longer wrong and right answers are than in the first tenth of the run, in the mean over questions, "
        "with its standard error. By the theory a loss that averages over the tokens of each answer makes wrong ones "
        "longer, and the other two leave them as they are.",
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
