"""The commands of the theory: ``predict``, ``which-kl``, ``design``, ``atlas``. What each needs, it imports itself."""

from pathlib import Path

from grpo_dynamics.cli import options, ranges
from grpo_dynamics.cli.errors import leave_out
from grpo_dynamics.cli.output import print_notes
from grpo_dynamics.cli.settings import Settings


def predict_command(
    beta: options.Beta = None,
    p_ref: options.PRef = None,
    p0: options.P0 = None,
    variant: options.Variant = "grpo",
    alpha: options.Alpha = None,
    eps: options.Eps = None,
    eps_placement: options.EpsPlacement = None,
    group_size: options.GroupSize = None,
    ddof: options.Ddof = None,
    silent_groups: options.SilentGroups = None,
    trainer: options.Trainer = None,
    trainer_version: options.TrainerVersion = None,
    trainer_set: options.TrainerSet = None,
    steps: options.Steps = 50,
    source: options.From = None,
    out: options.Out = None,
    id_column: options.IdColumn = None,
    rate_column: options.RateColumn = None,
    successes_column: options.SuccessesColumn = None,
    samples_column: options.SamplesColumn = None,
    confidence: options.Confidence = 0.95,
    plot: options.Plot = None,
    as_json: options.Json = False,
) -> None:
    """Predict where GRPO takes the success probability of one question, or of all in a file.

    In log-odds L = log(p/(1−p)) one iteration of training is
      L_n = α·L_ref + (1−α)·L_(n−1) + Ω(p_(n−1))/β
    with the advantage gap Ω, in GRPO 1/√(p(1−p)+ε), and α = 1. Printed are
    all fixed points p* with their multipliers, by which a step changes a
    small distance (stable if below 1 in size); where the orbit from p_0 goes
    and how fast; and which β amplify, and are stable.

    Examples:
      grpo-dynamics predict --beta 1 --p-ref 0.2
      grpo-dynamics predict --beta 5 --p-ref 0.001 --plot cycle.png
      grpo-dynamics predict --beta 0.04 --p-ref 0.2 --group-size 8 --json
      grpo-dynamics predict --beta 1 --p-ref 0.2 --variant two_kl --alpha 0.5

    With --from FILE (.csv, .jsonl or .parquet) every row is a question: an
    id, and a success rate or the numbers of successes and of samples. The
    number of samples gives Wilson's interval on p_ref, and the smallest and
    largest p* over all of it. Every question starts at its own p_ref.
      grpo-dynamics predict --beta 0.5 --from questions.csv
      grpo-dynamics predict --beta 0.5 --from questions.csv --out p.jsonl

    With --trainer the options are those of a trainer, whose KL term is an
    estimator and whose steps are small: see also which-kl.
      grpo-dynamics predict --trainer trl --beta 0.04 --p-ref 0.2
      grpo-dynamics predict --trainer trl --beta 0.04 --from questions.csv
    """
    columns = {
        "id_column": id_column,
        "rate_column": rate_column,
        "successes_column": successes_column,
        "samples_column": samples_column,
    }
    if trainer is not None:
        own = {"alpha": alpha, "eps": eps, "eps_placement": eps_placement, "ddof": ddof, "silent_groups": silent_groups}
        leave_out("with --trainer", variant=None if variant == "grpo" else variant, **own, plot=plot)
        from grpo_dynamics.cli.trainers import chosen_trainer, predict_trainer, predict_trainer_file

        chosen = chosen_trainer(trainer, trainer_version, beta, group_size, trainer_set or [])
        if source is None:
            leave_out("without --from", out=out, **columns)
            predict_trainer(chosen, p_ref, p0, as_json)
        else:
            leave_out("with --from", p_ref=p_ref, p0=p0)
            predict_trainer_file(chosen, source, out, columns, confidence, as_json)
        return
    given = " ".join(trainer_set or []) or None
    leave_out("without --trainer", trainer_version=trainer_version, set=given)
    settings = Settings(variant, alpha, eps, eps_placement, group_size, ddof, silent_groups)
    if source is None:
        leave_out("without --from", out=out, **columns)
        from grpo_dynamics.cli.predict import predict_one

        predict_one(settings, beta, p_ref, p0, steps, plot, as_json)
    else:
        leave_out("with --from", p_ref=p_ref, p0=p0, plot=plot)
        from grpo_dynamics.cli.questions import predict_file

        predict_file(settings, beta, steps, source, out, columns, confidence, as_json)
    print_notes(settings.notes())


def which_kl_command(
    trainer: options.Trainer = None,
    trainer_version: options.TrainerVersion = None,
    beta: options.Beta = None,
    group_size: options.GroupSize = None,
    trainer_set: options.TrainerSet = None,
    p_ref: options.PRef = None,
    as_json: options.Json = False,
) -> None:
    """Say which divergence a trainer really pulls with, and what that does to p*.

    The KL term in a trainer's loss is an estimate of KL(π‖π_ref), but its
    gradient need not be that of KL(π‖π_ref): k3 in the loss pulls with
    KL(π_ref‖π) on average, k1 in the loss with nothing. Printed is where each
    takes a question (p_ref = 0.2 unless told).

    Examples:
      grpo-dynamics which-kl --trainer trl --trainer-version 1.9.2 --beta 0.4
      grpo-dynamics which-kl --trainer verl --beta 0.1 --group-size 8
      grpo-dynamics which-kl --trainer openrlhf --group-size 8 --json
    """
    from grpo_dynamics.cli.trainers import chosen_trainer, which_kl

    which_kl(chosen_trainer(trainer, trainer_version, beta, group_size, trainer_set or []), p_ref, as_json)


def design_command(
    target: options.Target = None,
    p_ref: options.PRef = None,
    p0: options.P0 = None,
    variant: options.Variant = "grpo",
    alpha: options.Alpha = None,
    eps: options.Eps = None,
    eps_placement: options.EpsPlacement = None,
    group_size: options.GroupSize = None,
    ddof: options.Ddof = None,
    silent_groups: options.SilentGroups = None,
    as_json: options.Json = False,
) -> None:
    """Find the KL strength β that takes a question to a target success probability.

    Exactly one β makes a target p* > p_ref a fixed point:
      β = Ω(p*) / (α·(logit p* − logit p_ref))
    Whether training stays there is another question: the fixed point can be
    unstable, or the orbit from p_0 can go elsewhere. Then the nearest targets
    that are reached are printed, with their β.

    Examples:
      grpo-dynamics design --target 0.6 --p-ref 0.2
      grpo-dynamics design --target 0.9 --p-ref 0.2
      grpo-dynamics design --target 0.9 --p-ref 0.2 --group-size 8
      grpo-dynamics design --target 0.5 --p-ref 0.05 --json
    """
    from grpo_dynamics.cli.design import design_one

    settings = Settings(variant, alpha, eps, eps_placement, group_size, ddof, silent_groups)
    design_one(settings, target, p_ref, p0, as_json)
    print_notes(settings.notes())


def atlas_command(
    beta: ranges.OwnBeta = None,
    p_ref: ranges.OwnPRef = None,
    variant: options.Variant = "grpo",
    alpha: options.Alpha = None,
    eps: options.Eps = None,
    eps_placement: options.EpsPlacement = None,
    group_size: options.GroupSize = None,
    ddof: options.Ddof = None,
    silent_groups: options.SilentGroups = None,
    beta_range: ranges.BetaRange = None,
    p_ref_range: ranges.PRefRange = None,
    size: ranges.GridSize = 200,
    out: options.Folder = Path("atlas"),
    as_json: options.Json = False,
) -> None:
    """Map what becomes of questions, for every β and p_ref, with your settings.

    Pictures (PNG and PDF) and their tables (parquet and CSV): the phase
    diagram, with its folds, flips and cusp; where the iteration from p_ref
    ends; and through your own β and p_ref the orbit diagrams with their
    Lyapunov exponents. atlas.json says how they were made.

    Examples:
      grpo-dynamics atlas --out atlas
      grpo-dynamics atlas --beta 5 --p-ref 1e-3
      grpo-dynamics atlas --group-size 8 --beta-range 0.02:2 --size 100
      grpo-dynamics atlas --variant two_kl --alpha 0.5 --json

    Exact statistics take seconds. The work for groups grows with G: half a
    minute for G = 64, less with a smaller --size.
    """
    from grpo_dynamics.cli.atlas import draw_atlas

    settings = Settings(variant, alpha, eps, eps_placement, group_size, ddof, silent_groups)
    draw_atlas(settings, beta, p_ref, beta_range, p_ref_range, size, out, as_json)
    print_notes(settings.notes())
