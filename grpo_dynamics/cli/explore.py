"""`grpo-dynamics explore`: options in; the explorer's page, open in a browser, out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grpo_dynamics import Flow, __version__, explorer
from grpo_dynamics.arrays import require
from grpo_dynamics.cli.errors import bad_input, output_file, refuse, writing
from grpo_dynamics.cli.output import print_json
from grpo_dynamics.cli.settings import PROBABILITY, VARIANTS, Settings
from grpo_dynamics.cli.trainers import chosen_trainer
from grpo_dynamics.explorer.state import LARGEST_GROUP, state_of

BETA, P_REF = 1.0, 0.2
"""What the page opens with where nothing is said."""


def own_state(
    settings: Settings, beta: float | None, p_ref: float | None, p0: float | None, kl: str | None
) -> dict[str, Any]:
    """Return the state that the options of a recursion, or with ``kl`` of a flow, describe."""
    beta, p_ref = BETA if beta is None else beta, P_REF if p_ref is None else p_ref
    dynamics = settings.recursion(beta, p_ref)
    if kl is None:
        return _checked(state_of(dynamics, _start(p0)))
    if dynamics.alpha != 1:
        of_one_anchor = ", ".join(name for name, (_, anchor) in VARIANTS.items() if anchor == 1)
        refuse("variant", f"one of {of_one_anchor} with --kl, whose only KL is to the reference", settings.variant)
    with bad_input():
        return _checked(state_of(Flow(beta, p_ref, dynamics.normalization, kl), _start(p0)))  # pyright: ignore[reportArgumentType]


def trainer_state(
    name: str,
    version: str | None,
    beta: float | None,
    group_size: int | None,
    given: list[str],
    p_ref: float | None,
    p0: float | None,
) -> dict[str, Any]:
    """Return the state that a trainer's own options come to, with the trainer's name where the page has it so."""
    found = chosen_trainer(name, version, beta, group_size, given)
    with bad_input():
        flow = found.at(P_REF if p_ref is None else p_ref)
    state = state_of(flow, _start(p0))
    if found.kl == "none":
        del state["beta"]  # has no part in it
    own = {key: value for key, value in state.items() if key not in ("beta", "p_ref", "p0", "group_size")}
    for preset in explorer.presets():
        settings = {key: value for key, value in preset["settings"].items() if key != "group_size"}
        exact = preset["settings"]["group_size"] is None and state["group_size"] is None
        grouped = preset["settings"]["group_size"] is not None and state["group_size"] is not None
        if preset["id"].startswith(f"{found.name}-") and settings == own and (exact or grouped):
            state["trainer"] = preset["id"]
    return _checked(state)


def explore(state: dict[str, Any], out: Path, browser: bool, as_json: bool) -> None:
    """Write the page, open it, and say where it is."""
    output_file("out", out, (".html", ".htm"))
    from grpo_dynamics.plotting import write_whole

    with writing("out", out):
        write_whole(out, explorer.page(state).encode())
        address = out.resolve().as_uri() + explorer.fragment(state)
    if browser:
        import webbrowser

        browser = webbrowser.open(address)
    if as_json:
        print_json(
            {
                "command": "explore",
                "version": __version__,
                "out": str(out),
                "address": address,
                "opened": browser,
                "state": state,
            }
        )
        return
    print(f"The explorer: {out}")
    print(address)


def _start(p0: float | None) -> float | None:
    with bad_input():
        if p0 is not None:
            require("p0", p0, PROBABILITY, lambda x: (x > 0) & (x < 1))
    return p0


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    """Refuse a group that the page does not take."""
    size = state.get("group_size")
    if size is not None and size > LARGEST_GROUP:
        refuse("group_size", f"an integer from 2 to {LARGEST_GROUP} in the explorer", size)
    return state
