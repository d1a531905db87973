// What the numbers say, in plain language.

import { complement, sigmoid } from "./logodds.js";
import { LOWEST, lowestHeld, thresholds } from "./plane.js";
import { VARIANTS, alphaOf, matters } from "./state.js";

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const UNCHANGED = 0.02; // in log-odds
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
  if (p < 1e-4) return p > 1e-300 ? scientific(p, 1) : "0";
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

// In few digits, but never 1 for what is below.
const inWords = (L) => (short(L) === "1" ? exact(L) : short(L));

// A multiplier that a reader can tell from 1 and from −1.
export function factor(value) {
  const rest = Math.abs(value) - 1;
  const text = Number(Math.abs(value).toPrecision(4));
  const sign = value < 0 ? "−" : "";
  if (text === 1 && rest !== 0) return `${sign}(1 ${rest > 0 ? "+" : "−"} ${scientific(Math.abs(rest), 1)})`;
  return sign + (text !== 0 && (text < 1e-3 || text >= 1e5) ? scientific(text, 2) : String(text));
}

// Probabilities in few digits, in more where two of them would look the same.
function told(...places) {
  const words = places.map(short);
  return new Set(words).size < words.length ? places.map(exact) : words;
}

// {headline, more: [sentences]} of {state, dynamics, start, limit, fixed, attractors}, the last null while unknown.
export function verdict(found) {
  return { headline: headline(found), more: [...besides(found), ...boundaries(found)] };
}

function headline(found) {
  const { dynamics, start, limit } = found;
  const nearly = (text) => (text === "1" ? "nearly 1" : text);
  if (limit.kind === "one") return `Amplified from ${inWords(start)} to 1${whyOne(found)}.`;
  if (limit.kind === "cycle" || limit.kind === "irregular") {
    const [low, high] = told(limit.low, limit.high);
    if (limit.kind === "irregular") return `Never settles: wanders without period between ${low} and ${nearly(high)}.`;
    return `Never settles: oscillates between ${low} and ${nearly(high)}, with period ${limit.period}.`;
  }
  if (limit.kind === "undecided")
    return `Not settled after ${limit.steps.toLocaleString("en")} steps: at ${short(limit.L)} now.`;
  const [from, to] = told(start, limit.L);
  if (Math.abs(limit.L - start) < UNCHANGED || from === to) return `Practically unchanged, at ${inWords(limit.L)}.`;
  const begun = from === "1" ? exact(start) : from;
  if (limit.L > start) return `Amplified from ${begun} to ${to}.`;
  const [end, reference] = [limit.L, dynamics.anchor].map(to === short(limit.L) ? short : exact);
  return `Falls from ${begun} to ${to}${end === reference ? "" : `, still above the ${reference} of the reference`}.`;
}

// Why nothing holds it, known when all attractors are: β only where no other start is held either.
function whyOne({ state, dynamics, start, fixed, attractors }) {
  if (state.update === "gradient" && dynamics.divergence === "none") return ": this KL term does not pull";
  if (dynamics.alpha === 0) return ": nothing pulls back to the reference";
  if (attractors === null) return "";
  if (attractors.length === 1) return ": β is too small to hold it";
  const border = fixed.points.filter(({ stable }) => !stable).pop();
  if (border === undefined) return "";
  return `: ${start > border.L ? "the start is above" : "a step leads past"} the border at ${inWords(border.L)}`;
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
  const plain = `${up ? "above" : "below"} ${inWords(border)}`;
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
  return up ? `above ${inWords(border)} or below ${inWords(low)}` : `between ${inWords(low)} and ${inWords(border)}`;
}

// Where along p_ref, at this β, something else begins.
function boundaries({ dynamics, fixed }) {
  if (dynamics.alpha === 0 || (dynamics.kind === "flow" && dynamics.divergence !== "reverse")) return [];
  const found = thresholds(dynamics);
  const { anchor, alpha } = dynamics;
  const shown = (L) => L > -13.9 && L < 6.95;
  const [fold, second] = found.references;
  const folds = second < fold && shown(fold);
  const [upper, lower] = dynamics.kind === "recursion" && found.flips ? found.flips : [-Infinity, -Infinity];
  const flips = upper > LOWEST;
  const sentences = [];
  if (folds && anchor >= fold) {
    sentences.push(`${below(flips ? upper : -Infinity, fold)} there is a lower stable state.`);
  }
  if (flips && anchor > upper && shown(upper)) {
    const held = alpha === 1 ? lowestHeld(dynamics, found) : upper;
    const oscillates = short(held) !== short(upper);
    const span = below(oscillates ? held : lower, upper);
    sentences.push(`${span} the low state ${oscillates ? "oscillates" : "is not stable"}.`);
  } else if (flips && anchor <= upper && anchor > lower) {
    const [low] = fixed.points;
    const stable = shown(upper) ? `; it is stable above p_ref = ${short(upper)}` : "";
    if (low) sentences.push(`The low fixed point ${short(low.L)} repels by overshooting${stable}.`);
  }
  if (folds && anchor < fold) sentences.push(`Above p_ref = ${short(fold)} only the upper state is left.`);
  return sentences;
}

function below(low, high) {
  return low > LOWEST ? `Between p_ref = ${short(low)} and ${short(high)}` : `Below p_ref = ${short(high)}`;
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
