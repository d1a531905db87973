// How rewards become advantages: Ω(L), the advantage of a success less that of a failure, even in L.
// Each is an object: gap(L) = Ω, rate(L) = d log Ω/dL, turns = where Ω' turns on L > 0, folds(b) = where Ω' = b.

import { complement, sigmoid } from "./logodds.js";

const SMALLEST = 2.2250738585072014e-308;
export const EPSILON = 2.220446049250313e-16;
// up to here e^(L/2), the gap without smoothing, stays finite
export const LIMIT = 1.97 * Math.log(1.7976931348623157e308);

// Exact mean and variance. ε inside the root: (p(1−p)+ε)^(−1/2); beside the standard deviation: 1/(√(p(1−p))+ε).
export function whitened(eps, placement) {
  const inRoot = placement === "variance";
  function own(L) {
    if (inRoot) {
      const t = Math.exp(-Math.abs(L));
      return t / ((1 + t) * (1 + t));
    }
    const half = Math.exp(-0.5 * Math.abs(L));
    return half / (1 + half * half);
  }
  // without smoothing p(1−p) underflows long before Ω overflows
  const bare = (total) => eps === 0 && total < 4 * SMALLEST;
  function gap(L) {
    const total = own(L) + eps;
    if (bare(total)) return Math.exp(0.5 * Math.abs(L));
    return 1 / (inRoot ? Math.sqrt(total) : total);
  }
  function rate(L) {
    const part = own(L);
    const share = bare(part + eps) ? 1 : part / (part + eps);
    return Math.tanh(0.5 * L) * (0.5 * share);
  }
  const turn = inRoot
    ? 2 * Math.asinh(Math.sqrt(0.5 + 1 / (8 * eps)))
    : 2 * Math.acosh((1 + Math.sqrt(1 + 32 * eps * eps)) / (4 * eps));
  const made = { kind: "whitened", gap, rate, turns: [turn] };
  made.folds = inRoot ? (b) => foldsInRoot(b, eps, turn) : (b) => foldsBySections(made, b);
  return made;
}

// w = 1 + 4ε cosh²(L/2) solves 4εb²w³ − w + 1 + 4ε = 0; written with sin(θ/3), sin θ = b/b_c, nothing cancels.
function foldsInRoot(b, eps, turn) {
  const four = 4 * eps;
  const cusp = 2 / (3 * (1 + four) * Math.sqrt(3 * four));
  if (!(b < cusp)) return [turn, turn];
  const sine = Math.max(b / cusp, SMALLEST);
  const tan = Math.tan(Math.asin(sine) / 3);
  const scale = (3 * (1 + four)) / (sine * Math.sqrt(1 + tan * tan));
  const place = (w) => 2 * Math.asinh(b * w * Math.sqrt(w));
  const low = place(scale * tan);
  const high = Math.min(place(scale * (0.5 * Math.sqrt(3) - 0.5 * tan)), LIMIT);
  return [low, Math.max(low, high)];
}

// On each monotone piece of Ω' by bisection; a piece that b misses gives its end, so two equal folds do not exist.
export function foldsBySections(normalization, b) {
  const { turns } = normalization;
  const slope = (L) => normalization.gap(L) * normalization.rate(L);
  if (turns.length === 1 && Number.isFinite(turns[0]) && b >= slope(turns[0])) return [turns[0], turns[0]];
  const knots = [0, ...turns.map((turn) => Math.min(turn, LIMIT)), LIMIT];
  const folds = [];
  for (let i = 0; i + 1 < knots.length; i++) {
    let [low, high] = [knots[i], knots[i + 1]];
    for (let round = 0; round < 64; round++) {
      const middle = 0.5 * (low + high);
      if (slope(middle) < b === (i % 2 === 0)) low = middle;
      else high = middle;
    }
    folds.push(0.5 * (low + high));
  }
  return folds;
}

// Mean only: Ω = 1, or (G−1)/G where the mean over the group includes the sample.
export function meanOnly(groupSize) {
  const value = Number.isFinite(groupSize) ? (groupSize - 1) / groupSize : 1;
  return { kind: "mean", gap: () => value, rate: () => 0, turns: [1], folds: () => [1, 1] };
}

// Silent groups dropped together with their k3: Ω of the kept ones over the share of answers in mixed groups.
export function mixedGroups(kept, groupSize) {
  const n = groupSize - 1;
  const ends = (L) => {
    const [p, q] = [sigmoid(L), complement(L)];
    return [p, q, p ** n * q, p * q ** n];
  };
  function gap(L) {
    const [, , lastWrong, lastRight] = ends(L);
    return kept.gap(L) / (1 - lastWrong - lastRight);
  }
  function rate(L) {
    const [p, q, lastWrong, lastRight] = ends(L);
    const change = lastWrong * (p - n * q) + lastRight * (n * p - q);
    return kept.rate(L) - change / (1 - lastWrong - lastRight);
  }
  return { kind: "mixed", gap, rate, turns: kept.turns, folds: kept.folds };
}
