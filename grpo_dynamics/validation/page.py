"""The page of a report: plain words first, then pictures, numbers, and how the run was made; nothing from elsewhere."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from grpo_dynamics import __version__
from grpo_dynamics.validation.compare import Comparison
from grpo_dynamics.validation.error_split import PARTS
from grpo_dynamics.validation.measured import Measured
from grpo_dynamics.validation.summary import Numbers, short
from grpo_dynamics.validation.words import CAPTIONS, FATES, SPLIT


def page_of(
    measured: Measured,
    compared: Sequence[Comparison],
    summaries: Sequence[Numbers],
    sections: Sequence[str],
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """Return the HTML of a whole run.

    Args:
        measured: the run.
        compared: its arms.
        summaries: what they come to.
        sections: their parts of the page, from :func:`section_of`.
        pictures: PNG files of all arms: "overview", "lengths".
    """
    template = files("grpo_dynamics.validation").joinpath("report.html").read_text(encoding="utf-8")
    exact = all(bool(found.split.exact.all()) for found in compared if found.theory.has_orbits)
    parts = {
        "NAME": _text(measured.name),
        "VERDICTS": _lead(summaries) + (_list(measured.notes) if measured.notes else ""),
        "OVERVIEW": "".join(_figure(name, CAPTIONS[name], "all arms", data) for name, data in (pictures or {}).items()),
        "TABLE": _overview(summaries),
        "ARMS": "\n".join(sections),
        "MADE": _made(measured),
        "SPLIT": SPLIT[exact],
        "FOOT": f"Written by grpo-dynamics {__version__}. The tables beside this file hold every number of it.",
    }
    for name, text in parts.items():
        template = template.replace(f"<!--{name}-->", text)
    return template


def _lead(summaries: Sequence[Numbers]) -> str:
    """How many arms keep their promises, and a sentence for each that does not; for one arm its own sentence."""
    judged = [told for told in summaries if told["passed"] is not None]
    broken = [told for told in judged if not told["passed"]]
    said = ""
    if len(summaries) > 1:
        words = f"{len(judged) - len(broken)} of {len(judged)} arms keep the bounds that the run promised."
        said = f"<p class=lead>{words if judged else 'The run promised no bounds: nothing is judged.'}</p>"
    shown = summaries if len(summaries) == 1 else broken
    return said + "".join(
        f"<p class=lead><b>{_text(told['arm'])}</b> {_badge(told)} {_math(told['headline'])}</p>" for told in shown
    )


def _badge(told: Numbers) -> str:
    """One word: passed, failed, unfinished, or that nothing was asked."""
    if told["passed"] is None:
        kind, word = "data", "no thresholds"
    else:
        kind, word = ("good", "pass") if told["passed"] else ("bad", "fail")
    unfinished = "" if told["finished"] else ' <span class="verdict warn">not finished</span>'
    return f'<span class="verdict {kind}">{word}</span>{unfinished}'


def _overview(summaries: Sequence[Numbers]) -> str:
    heads = ("arm", "theory", "median |p_n − predicted|", "95th percentile", "median |p_∞ − p*|", "R²", "")
    rows = [
        [
            f'<a href="#{_text(told["arm"])}">{_text(told["arm"])}</a>',
            _math(told["theory"]),
            _short(told["residual"]["median"]),
            _short(told["residual"]["percentile_95"]),
            _short(told["p_infinity"]["median"]),
            _decimal(told["r2"] if told["residual"]["points"] else told["p_infinity"]["r2"]),
            _badge(told),
        ]
        for told in summaries
    ]
    return _table(heads, rows, numbers=(2, 3, 4, 5))


def section_of(found: Comparison, told: Numbers, pictures: Mapping[str, bytes]) -> str:
    """Return everything about one arm.

    Args:
        found: the arm beside its theory.
        told: what it comes to.
        pictures: PNG files, by the names of :mod:`grpo_dynamics.validation.figures`.
    """
    blocks = [f'<h2 id="{_text(told["arm"])}">{_text(told["arm"])} {_badge(told)}</h2>']
    blocks.append(f"<p class=lead>{_math(told['verdict'])}</p>")
    blocks.append(f"<p><b>Theory: {_math(told['theory'])}.</b> {_math(told['why'])}.</p>")
    if told["notes"]:
        blocks.append(_list(told["notes"]))
    if told["questions_without_p_ref"]:
        blocks.append(
            f"<p>Of {told['questions_without_p_ref']} questions all samples before training were wrong, or all were "
            "right: their p_ref cannot be known, only its interval. They count in the coverage and nowhere else.</p>"
        )
    if told["thresholds"]:
        rows = [
            [
                _math(entry["what"]),
                f"{entry['how']} {_short(entry['bound'])}",
                _short(entry["value"]),
                _mark(entry["passed"]),
            ]
            for entry in told["thresholds"]
        ]
        blocks.append(f"<div class=wide>{_table(('promised', 'bound', 'measured', ''), rows, numbers=(1, 2))}</div>")
    for name, data in pictures.items():
        kind = "flow" if name == "trajectories" and not found.theory.has_orbits else name
        blocks.append(_figure(name, CAPTIONS[kind], f"arm {told['arm']}", data))
    blocks.append(_numbers(told))
    blocks.append(f"<h3>Not modelled, and so part of the difference</h3>{_list(told['not_modelled'])}")
    return f"<section>{''.join(blocks)}</section>"


def _figure(name: str, words: tuple[str, str], of: str, data: bytes) -> str:
    """A picture inside the page, with its title and what it shows."""
    title, caption = words
    return (
        f'<figure class="{name}"><h3>{_text(title)}</h3><img alt="{_text(title)}, {_text(of)}" '
        f'src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        f"<figcaption class=small>{_text(caption)}</figcaption></figure>"
    )


def _numbers(told: Numbers) -> str:
    """The tables under the pictures: the numbers, other theories, the fitted line, the causes of the error."""
    rows = [
        [
            _math(words),
            str(told[name]["points"]),
            *(_short(told[name][key]) for key in ("median", "percentile_95", "largest")),
        ]
        for name, words in (
            ("residual", "p_n, each question as it is judged"),
            ("orbit_settling", "p_n along the path from p_ref, questions that settle"),
            ("orbit", "p_n along the path from p_ref, all questions"),
            ("one_step", "p_n from the measurement before, all questions"),
            ("p_infinity", "p_∞ against p*"),
            ("fitted", f"fitted relaxation, κ = {_decimal(told['fitted']['kappa'])} (no prediction)"),
        )
        if told[name]["points"]
    ]
    heads = ("|measured − predicted|", "numbers", "median", "95 %", "largest")
    blocks = [f"<h3>The numbers</h3><div class=wide>{_table(heads, rows, numbers=(1, 2, 3, 4))}</div>"]
    covered = [(name.replace("_", " "), value) for name, value in told["coverage"].items() if value is not None]
    if covered:
        words = ", ".join(f"{value:.1%} ({name})" for name, value in covered)
        blocks.append(f"<p>Measurements that agree with their prediction within the 95 % intervals: {words}.</p>")
    if (held := told["interval"])["points"]:
        blocks.append(
            f"<p>Of {held['points']} measurements {held['covered']:.1%} are in the {held['level']:.0%} interval of "
            f"their prediction, which is {_short(held['width'])} wide in the median.</p>"
        )
    rows = [
        [
            _math(entry["name"]),
            _short(entry["residual_median"]),
            _short(entry["p_infinity_median"]),
            "–" if (share := entry["own_nearer"] or entry["own_nearer_p_infinity"]) is None else f"{share:.0%}",
        ]
        for entry in told["other_theories"]
    ]
    own = [
        f"<b>{_math(told['theory'])}</b>",
        _short(told["residual"]["median"]),
        _short(told["p_infinity"]["median"]),
        "",
    ]
    if rows:
        heads = ("theory", "median |p_n − predicted|", "median |p_∞ − p*|", "the run's own is nearer")
        blocks.append(
            f"<h3>Other theories on the same run</h3><div class=wide>{_table(heads, [own, *rows], (1, 2, 3))}</div>"
        )
    error = told["error"]
    if error["total"] is not None:
        parts = ", ".join(f"{name} {_short(error[name])}" for name in PARTS)
        reached = error["converged"]
        loop = "" if reached is None else f" {100 * reached:.0f} % of the inner loops reached their tolerance."
        blocks.append(
            f"<p>Root mean square error of one step {_short(error['total'])}: {parts}"
            f"{'' if error['exact'] else ' (sizes)'}.{loop}</p>"
        )
    ends = ", ".join(f"{count} {FATES[name]}" for name, count in told["fates"].items())
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in told["regimes"].items())
    blocks.append(
        f"<p class=small>By the theory, from p<sub>ref</sub>: {_text(ends)}. Regimes of their interior fixed points: "
        f"{_text(counts)}.</p>"
    )
    return "".join(blocks)


def _made(measured: Measured) -> str:
    """The manifests, the words first."""
    blocks: list[str] = []
    for arm in measured.arms:
        known = arm.manifest
        rows = [
            [_text(words), _text(_brief(known[key]))]
            for key, words in (
                *(("status", "status"), ("iterations_done", "iterations"), ("seed", "seed"), ("model", "model")),
                *(
                    ("task", "task"),
                    ("measurement", "how p was measured"),
                    ("engine", "engine"),
                    ("seconds", "seconds"),
                ),
                *(
                    ("resumed", "times resumed"),
                    ("hardware", "hardware"),
                    ("commit", "commit"),
                    ("versions", "versions"),
                ),
            )
            if known.get(key) is not None
        ]
        settings = _text(json.dumps(arm.config, indent=1, ensure_ascii=False, default=str))
        blocks.append(
            f"<details><summary>{_text(arm.name)}</summary><div class=wide>{_table(('', ''), rows)}</div>"
            f"<pre>{settings}</pre></details>"
        )
    return "".join(blocks)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""

    def cell(tag: str, i: int, text: str) -> str:
        return f"<{tag}{' class=number' if i in numbers else ''}>{text}</{tag}>"

    body = "".join(f"<tr>{''.join(cell('td', i, text) for i, text in enumerate(row))}</tr>" for row in rows)
    head = "".join(cell("th", i, _math(text)) for i, text in enumerate(heads))
    top = f"<thead><tr>{head}</tr></thead>" if any(heads) else ""
    return f"<table>{top}<tbody>{body}</tbody></table>"


def _mark(passed: bool) -> str:
    return '<span class="verdict good">pass</span>' if passed else '<span class="verdict bad">fail</span>'


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>"


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_brief(item)}" for key, item in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _short(value: float | None) -> str:
    return _text(short(value))


def _text(value: Any) -> str:
    return html.escape(str(value))


def _math(text: str) -> str:
    """Escape a sentence and set p_n, L_(n−1), π_ref as they are printed."""
    return re.sub(r"\b([pLπ])_(?:\(([^)]*)\)|(ref|n|∞))", r"<i>\1</i><sub>\2\3</sub>", _text(text))
