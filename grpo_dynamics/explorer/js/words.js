// What the numbers say, in plain language.

import { complement, sigmoid } from "./logodds.js";
import { thresholds } from "./plane.js";
import { VARIANTS, alphaOf, matters } from "./state.js";

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const SPACE = "\u00a0"; // a number is not broken over two lines

function raised(exponent) {
  return (exponent < 0 ? "⁻" : "") + [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPTS[digit]).join("");
}

function scientific(value, digits) {
  const [mantissa, exponent] = value.toExponential(digits).split("e");
  return `${mantissa}${SPACE}×${SPACE}10${raised(Number(exponent))}`;
}

function exponentOf(value, digits) {
  return Number(value.toExponential(digits).split("e")[1]);
}

// A probability to two digits, those of 1 − p near 1: 0.20, 0.0013, 0.93, 0.996, 1.
export function short(L) {
  const [p, q] = [sigmoid(L), complement(L)];
  if (q < 5e-4) return "1";
  if (p < 1e-4) return p > 1e-300 ? scientific(p, 0) : "0";
  const digits = p < 0.5 ? 1 - exponentOf(p, 1) : -exponentOf(q, 0);
  return p.toFixed(Math.max(2, digits));
}

// A probability that a reader can tell from 0 and from 1, however close it is.
export function exact(L) {
  const [p, q] = [sigmoid(L), complement(L)];
  if (L > 1e9) return "1";
  if (L > 300) return `1${SPACE}−${SPACE}10${raised(-Math.round(L / Math.LN10))}`;
  if (q < 5e-4) return `1${SPACE}−${SPACE}${scientific(q, 2)}`;
  if (p < 5e-4) return scientific(p, 2);
  return p < 0.1 ? p.toPrecision(4) : p.toFixed(4);
}

// A multiplier that a reader can tell from 1 and from −1.
export function factor(value) {
  const rest = Math.abs(value) - 1;
  const text = Number(Math.abs(value).toPrecision(4));
  const sign = value < 0 ? "−" : "";
  if (text === 1 && rest !== 0) return `${sign}(1 ${rest > 0 ? "+" : "−"} ${scientific(Math.abs(rest), 1)})`;
  return sign + (text !== 0 && (text < 1e-3 || text >= 1e5) ? scientific(text, 2) : String(text));
}

// {headline, more: [sentences]} of {state, dynamics, start, limit, fixed, attractors}, the last null while unknown.
export function verdict(found) {
  return { headline: headline(found), more: [...besides(found), ...boundaries(found)] };
}

function headline({ state, dynamics, start, limit }) {
  const [from, to] = [short(start), short(limit.L)];
  const [low, high] = [short(limit.low), short(limit.high) === "1" ? "nearly 1" : short(limit.high)];
  if (limit.kind === "one") return `Amplified from ${from} to 1${whyOne(state, dynamics)}.`;
  if (limit.kind === "cycle")
    return `Never settles: oscillates between ${low} and ${high}, with period ${limit.period}.`;
  if (limit.kind === "irregular") return `Never settles: wanders without period between ${low} and ${high}.`;
  if (limit.kind === "undecided") return `Not settled after ${limit.steps.toLocaleString("en")} steps: at ${to} now.`;
  if (Math.abs(limit.L - start) < 1e-3 || from === to) return `Practically unchanged, at ${to}.`;
  if (limit.L > start) return `Amplified from ${from} to ${to}.`;
  return `Falls from ${from} to ${to}, still above the ${short(dynamics.anchor)} of the reference.`;
}

function whyOne(state, dynamics) {
  if (state.update === "gradient" && dynamics.divergence === "none") return ": this KL term does not pull";
  if (dynamics.alpha === 0) return ": nothing pulls back to the reference";
  return ": β is too small to hold it";
}

// What else attracts at this β and p_ref.
function besides({ dynamics, limit, fixed, attractors }) {
  if (attractors === null) return [];
  const mine = (row) =>
    row.low <= limit.high + 1e-6 && row.high >= limit.low - 1e-6 && (row.period === 1) === (limit.period === 1);
  const others = attractors.filter((row) => !mine(row));
  const unstable = fixed.points.filter((point) => !point.stable).map((point) => point.L);
  if (attractors.length === 1 && others.length === 0 && limit.period === 1)
    return ["Almost every other start ends there, too."];
  return others.map((row) => {
    if (row.kind === "cycle")
      return `Other starts end in an oscillation between ${short(row.low)} and ${short(row.high)}.`;
    if (row.kind === "irregular")
      return `Other starts wander without period between ${short(row.low)} and ${short(row.high)}.`;
    if (row.kind === "undecided") return "Beside a bifurcation: another orbit has not settled after 16,000 steps.";
    const up = row.low > limit.high;
    const border = up
      ? unstable.find((L) => L < row.low && L > limit.high)
      : unstable.filter((L) => L > row.low && L < limit.low).pop();
    const starts = border === undefined ? "" : `, for starts ${startsBeyond(dynamics, border, up)}`;
    return `A second stable state at ${short(row.low)}${starts}.`;
  });
}

// Which starts go up beyond a border that repels, or stay below it. A recursion overshoots: far below, a whole step leads
// past the border, too. Where a start in between leads that far down, the basins are not two intervals.
function startsBeyond(dynamics, border, up) {
  const name = (L) => (short(L) === "1" ? exact(L) : short(L));
  const plain = `${up ? "above" : "below"} ${name(border)}`;
  if (dynamics.kind === "flow") return plain;
  const over = (L) => dynamics.step(L) >= border;
  const [part, parts] = [0.05, 2000];
  const downward = Array.from({ length: parts }, (_, i) => border - part * (i + 1));
  const first = downward.findIndex(over);
  if (first < 1) return first < 0 ? plain : `${plain}, among others`;
  let [low, high] = [downward[first], downward[first - 1]];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (over(middle)) low = middle;
    else high = middle;
  }
  const whole = downward.slice(first).every(over) && downward.slice(0, first).every((L) => dynamics.step(L) > low);
  if (!whole) return `${plain}, among others`;
  return up ? `above ${name(border)} or below ${name(low)}` : `between ${name(low)} and ${name(border)}`;
}

// Where along p_ref, at this β, something else begins.
function boundaries({ state, dynamics, fixed }) {
  if (dynamics.alpha === 0 || (dynamics.kind === "flow" && dynamics.divergence !== "reverse")) return [];
  const { references, flips } = thresholds(dynamics);
  const { anchor } = dynamics;
  const shown = (L) => L > -13.9 && L < 6.95;
  const sentences = [];
  const [fold, second] = references;
  const folds = second < fold && shown(fold);
  const upper = dynamics.kind === "recursion" && flips ? flips[0] : -Infinity;
  const low = fixed.points[0];
  if (folds && anchor >= fold) {
    const flip = upper < fold && shown(upper) ? `, which oscillates below ${short(upper)}` : "";
    sentences.push(`Below p_ref = ${short(fold)} there is a lower state${flip}.`);
  } else if (anchor > upper) {
    if (shown(upper)) sentences.push(`Below p_ref = ${short(upper)} the low state oscillates.`);
  } else if (anchor > flips[1] && low) {
    const stable = shown(upper) ? `; it is stable above p_ref = ${short(upper)}` : "";
    sentences.push(`The low fixed point ${short(low.L)} repels by overshooting${stable}.`);
  }
  if (folds && anchor < fold) sentences.push(`Above p_ref = ${short(fold)} only the upper state is left.`);
  return sentences;
}

// The code that has the same dynamics in Python.
export function snippet(state) {
  const lines = ["import grpo_dynamics as gd"];
  const divides = VARIANTS[state.variant].whitened;
  const finite = state.group_size < Infinity;
  const smoothing = [`eps=${state.eps}`, `eps_placement="${state.eps_placement}"`];
  const silent = state.silent_groups === "drop" ? ['silent_groups="drop"'] : [];
  let normalization = call("normalization", "gd.MeanOnly", finite ? [`${state.group_size}`] : []);
  if (divides && finite) {
    const options = [`${state.group_size}`, ...smoothing, `ddof=${state.ddof}`, ...silent];
    normalization = call("normalization", "gd.FiniteGroup", options);
  } else if (divides) normalization = call("normalization", "gd.Whitened", smoothing);
  if (finite && state.silent_groups === "drop_with_kl") {
    lines.push("from grpo_dynamics.theory.trainers import MixedGroups");
    normalization += `\nnormalization = MixedGroups(normalization, ${state.group_size})`;
  }
  const common = [`beta=${state.beta}`, `p_ref=${state.p_ref}`, "normalization=normalization"];
  const dynamics =
    state.update === "gradient"
      ? call("dynamics", "gd.Flow", [...common, `kl="${state.kl}"`])
      : call("dynamics", "gd.Recursion", [...common, `alpha=${alphaOf(state)}`]);
  lines.push("", normalization, dynamics, "fixed = gd.fixed_points(dynamics)");
  lines.push("print(fixed.p, fixed.multiplier, fixed.stable)");
  lines.push(`print(gd.limit(dynamics${state.p0 === null ? "" : `, p0=${state.p0}`}).p)`);
  return lines.join("\n");
}

// name = callee(options), in lines that fit beside a picture.
function call(name, callee, options) {
  const whole = `${name} = ${callee}(${options.join(", ")})`;
  if (whole.length <= 48) return whole;
  const rows = [""];
  for (const option of options) {
    if (rows[rows.length - 1].length + option.length > 42) rows.push("");
    rows[rows.length - 1] += `${rows[rows.length - 1] ? " " : ""}${option},`;
  }
  return `${name} = ${callee}(\n    ${rows.join("\n    ")}\n)`;
}

// One line of what is set, for the head of the pictures and for readers of screens.
export function settingsLine(state) {
  const parts = [VARIANTS[state.variant].name];
  if (matters("beta", state)) parts.push(`β = ${brief(state.beta)}`);
  parts.push(`p_ref = ${state.p_ref}`);
  if (matters("alpha", state)) parts.push(`α = ${brief(state.alpha)}`);
  if (matters("eps", state)) parts.push(`ε = ${brief(state.eps)}`);
  parts.push(state.group_size < Infinity ? `G = ${state.group_size}` : "exact statistics");
  return parts.join(", ");
}

export function brief(value) {
  if (value === 0) return "0";
  const rounded = Number(value.toPrecision(4));
  return Math.abs(rounded) < 1e-3 || Math.abs(rounded) >= 1e5
    ? scientific(rounded, rounded.toExponential(2).includes(".00e") ? 0 : 2)
    : String(rounded);
}
