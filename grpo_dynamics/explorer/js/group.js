// Mean and standard deviation over a group of G sampled answers: Ω is a polynomial of degree G−1 in p.

import { foldsBySections } from "./normalization.js";

export function finiteGroup({ groupSize, eps, placement, ddof, silent }) {
  const gaps = sampleGaps(groupSize, eps, placement, ddof);
  const steps = gaps.slice(1).map((value, k) => value - gaps[k]);
  const dropped = silent === "drop";
  function gap(L) {
    const odds = Math.exp(-Math.abs(L)); // of the rarer result; Ω is even in L
    const value = bernstein(odds, groupSize - 1, gaps);
    if (!dropped) return value;
    return odds > 0 ? value / mixedShare(odds, groupSize).mixed : Infinity;
  }
  function rate(L) {
    const odds = Math.exp(-Math.abs(L));
    let rising = 0; // d log Ω/d|L|
    if (groupSize > 2) {
      const bend = (1 - groupSize) * bernstein(odds, groupSize - 2, steps);
      rising = (bend * odds) / ((1 + odds) * (1 + odds)) / bernstein(odds, groupSize - 1, gaps);
    }
    if (dropped) {
      const { mixed, loss } = mixedShare(odds, groupSize);
      rising += odds > 0 ? loss / mixed : 1;
    }
    return Math.sign(L) * rising;
  }
  let turns = null; // found when they are first asked for: a search over some hundred places
  const made = {
    kind: "group",
    gap,
    rate,
    groupSize,
    get turns() {
      return (turns ??= turnsOf(made, groupSize, dropped));
    },
  };
  made.folds = (b) => foldsBySections(made, b);
  return made;
}

// Σ_k C(n,k) p^k (1−p)^(n−k) c_k by the linear-time convex scheme of Woźny and Chudy; odds = p/(1−p) ≤ 1.
function bernstein(odds, degree, coefficients) {
  let weight = 1;
  let value = coefficients[0];
  const mode = (odds / (1 + odds)) * degree;
  for (let k = 1; k <= degree; k++) {
    const step = weight * odds * (degree - (k - 1));
    weight = step / (k + step);
    value += weight * (coefficients[k] - value);
    if (weight < 1e-21 && k > mode) break; // what is left weighs still less
  }
  return value;
}

// 1 − p^G − (1−p)^G, and minus its derivative to |L|.
function mixedShare(odds, size) {
  const allWrong = Math.exp(-size * Math.log1p(odds));
  const allRight = allWrong * odds ** size;
  return {
    mixed: -Math.expm1(-size * Math.log1p(odds)) - allRight,
    loss: (size * (odds * allWrong - allRight)) / (1 + odds),
  };
}

// The gap that one sample sees when s of the others succeed, s = 0 … G−1.
function sampleGaps(size, eps, placement, ddof) {
  const inverseStd = (k) => {
    if (k === 0 || k === size) return 0;
    const variance = ((k / size) * (1 - k / size) * size) / (size - ddof);
    return 1 / (placement === "variance" ? Math.sqrt(variance + eps) : Math.sqrt(variance) + eps);
  };
  const gaps = new Array(size);
  for (let s = 0; s < size; s++) gaps[s] = (1 - (s + 1) / size) * inverseStd(s + 1) + (s / size) * inverseStd(s);
  return gaps;
}

// One turn of Ω' where silent groups are kept; two where they are dropped, infinite where its slope only rises.
function turnsOf(group, size, dropped) {
  const slope = (L) => group.gap(L) * group.rate(L);
  const end = 4 * Math.log(size) + 12;
  if (!dropped) return [extremum(slope, 0, end, 1)];
  let [least, dip, before] = [0, 0, slope(0)];
  for (let i = 1; i <= 256; i++) {
    const value = slope((end * i) / 256);
    if (value - before < least) [least, dip] = [value - before, (end * (i - 0.5)) / 256];
    before = value;
  }
  if (least >= 0) return [Infinity, Infinity];
  return [extremum(slope, 0, dip, 1), extremum(slope, dip, end, -1)];
}

// Where the slope is largest (sign 1) or smallest (sign −1) on a bracket where it is unimodal, by ever finer grids.
function extremum(slope, low, high, sign) {
  for (let round = 0; round < 9; round++) {
    const width = (high - low) / 32;
    let [best, most] = [0, -Infinity];
    for (let i = 0; i <= 32; i++) {
      const value = sign * slope(low + width * i);
      if (value > most) [best, most] = [i, value];
    }
    [low, high] = [low + width * Math.max(best - 1, 0), low + width * Math.min(best + 1, 32)];
  }
  return 0.5 * (low + high);
}
