// Every fixed point with its multiplier. The places where Ω' = b cut the line into pieces on which b·d − Ω is
// monotone: the signs at their ends say how many there are and bracket each, before any root is searched.

import { sigmoid } from "./logodds.js";
import { EPSILON, LIMIT } from "./normalization.js";
import { recursion } from "./dynamics.js";

export const STATUS = {
  ok: "",
  degenerate: "On a fold to working precision: two fixed points have merged and are listed once.",
  above_fold: "No fixed point below 1: without smoothing and above the fold, p goes to 1.",
  mirror: "No fixed point below 1: nothing pulls to the reference, p goes to 1.",
  no_pull: "No fixed point below 1: this KL term is no pull on average, p goes to 1.",
  weak_pull: "No fixed point below 1: the pull to the reference is too weak near 1, p goes to 1.",
};

// {points: [{L, multiplier, stable}] ascending, status}
export function fixedPoints(dynamics) {
  if (dynamics.kind === "recursion") return ofRecursion(dynamics);
  if (dynamics.divergence === "none") return { points: [], status: "no_pull" };
  if (dynamics.divergence === "forward") return ofForwardFlow(dynamics);
  const { points, status } = ofRecursion(recursion({ ...dynamics, alpha: 1 }));
  return { points: points.map((point) => ({ ...point, stable: point.multiplier < 1 })), status };
}

function ofRecursion({ alpha, beta, anchor, normalization }) {
  const pull = alpha * beta;
  if (!(pull > 0)) return { points: [], status: "mirror" };
  const { distances, degenerate } = roots(normalization, pull, anchor);
  const points = distances.map((d) => {
    const elasticity = d * normalization.rate(anchor + d); // Ω/(αβ) = L − L_ref
    const multiplier = 1 - alpha + alpha * elasticity;
    return { L: anchor + d, multiplier, stable: Math.abs(multiplier) < 1 };
  });
  return { points, status: degenerate ? "degenerate" : points.length ? "ok" : "above_fold" };
}

// All d with b·d = Ω(L_ref + d), ascending.
function roots(normalization, pull, anchor) {
  const { gap } = normalization;
  const [least, largest] = [gap(0) / pull, gap(Infinity) / pull];
  const bounded = largest < Infinity;
  const folds = normalization.folds(pull);
  for (let i = 1; i < folds.length; i++) {
    // two equal folds do not exist: b misses the piece of the slope between them
    if (!(folds[i] - folds[i - 1] > 30 * Math.sqrt(EPSILON) * folds[i])) folds[i] = folds[i - 1];
  }
  const ratios = folds.map((fold) => (pull * (fold - anchor)) / gap(fold)); // b·d > Ω where above 1
  const double = folds.map((fold, i) => {
    const distance = fold - anchor;
    const near = Math.abs((ratios[i] - 1) * distance) <= 16 * EPSILON * (Math.abs(distance) + fold + Math.abs(anchor));
    return near && fold !== folds[i - 1] && fold !== folds[i + 1];
  });
  const knots = [least, ...folds.map((fold) => fold - anchor), bounded ? largest : LIMIT - anchor];
  // beside a double root b·d − Ω is negative at a maximum, positive at a minimum
  const above = [
    false,
    ...ratios.map((ratio, i) => (i % 2 ? ratio > 1 || double[i] : ratio > 1 && !double[i])),
    bounded,
  ];
  const merged = [false, ...double.map((here, i) => here && !(i > 0 && double[i - 1])), false];
  const distances = [];
  for (let i = 0; i + 1 < knots.length; i++) {
    const rising = i % 2 === 0;
    if (rising && (merged[i] || merged[i + 1])) distances.push(merged[i] ? knots[i] : knots[i + 1]);
    else if (above[i] !== above[i + 1] && above[i] !== rising) {
      distances.push(search(normalization, pull, anchor, Math.max(knots[i], least), knots[i + 1], rising));
    }
  }
  return { distances, degenerate: double.some(Boolean) };
}

// Newton's method on log(Ω/(b·d)) over log d in a bracket that shrinks; where it would leave, the bracket is halved.
function search(normalization, pull, anchor, low, high, rising) {
  let d = Math.sqrt(low) * Math.sqrt(high);
  for (let round = 0; round < 300; round++) {
    const log = Math.log(normalization.gap(anchor + d) / (pull * d));
    if (log === 0) return d;
    if (log > 0 === rising) low = d;
    else high = d;
    const tangent = 1 - d * normalization.rate(anchor + d);
    let next = d * (1 + log / tangent);
    const slack = 8 * EPSILON * d; // the ends are attained in rounding
    if (!(next >= low - slack && next <= high + slack))
      next = high > 4 * low ? Math.sqrt(low) * Math.sqrt(high) : 0.5 * (low + high);
    else if (Math.abs(next - d) <= 4 * EPSILON * d) return next;
    if (high - low <= 4 * EPSILON * high) return 0.5 * (low + high);
    d = next;
  }
  return d;
}

// With k3 in the loss there is at most one: β·S/Ω rises with d; Newton's method over x = log(e^d − 1).
function ofForwardFlow(dynamics) {
  const { anchor, beta, pRef, normalization } = dynamics;
  const failure = 1 - pRef;
  function ratio(d) {
    const L = anchor + d;
    const part = -failure * Math.expm1(-d);
    const half = Math.exp(0.5 * Math.max(L, 0)); // twice, as e^L may overflow where Ω is as large
    const rest = 1 + Math.exp(-Math.abs(L));
    return {
      value: beta * part * rest * half * (half / normalization.gap(L)),
      slope: 1 / Math.expm1(d) + (sigmoid(L) - normalization.rate(L)),
      restoring: part * rest * half * half,
    };
  }
  const heldInside = ratio(0.49 * LIMIT - anchor).value > 1;
  if (!heldInside && !(ratio(LIMIT - anchor).value > 1)) return { points: [], status: "weak_pull" };
  const top = (heldInside ? 0.49 * LIMIT : LIMIT) - anchor;
  // the tangent at d = 0: the root lies beyond
  let x =
    Math.log(normalization.gap(anchor) / (beta * failure)) -
    Math.log1p(Math.exp(-Math.abs(anchor))) -
    Math.max(anchor, 0);
  let [low, high] = [x - 1, Math.max(top + Math.log(-Math.expm1(-top)), x)];
  const distance = (at) => Math.max(at, 0) + Math.log1p(Math.exp(-Math.abs(at)));
  for (let round = 0; round < 200; round++) {
    const d = distance(x);
    const { value, slope } = ratio(d);
    if (value <= 1) low = x;
    else high = x;
    const move = -Math.log(value) / (slope * -Math.expm1(-d));
    if (Math.abs(move) <= 4 * EPSILON * (1 + Math.abs(x))) {
      x += move;
      break;
    }
    x = x + move > low && x + move < high ? x + move : 0.5 * (low + high);
    if (high - low <= 4 * EPSILON * (1 + Math.abs(x))) break;
  }
  const d = distance(x);
  const { slope, restoring } = ratio(d);
  const multiplier = 1 - restoring * slope;
  return { points: [{ L: anchor + d, multiplier, stable: multiplier < 1 }], status: "ok" };
}
