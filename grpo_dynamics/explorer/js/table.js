// A copy of a group's gap that is cheap to evaluate: cubic between exact values of Ω and Ω'. For pictures only.

import { LIMIT } from "./normalization.js";

export function tabulated(normalization) {
  if (normalization.kind !== "group") return normalization;
  const count = 400;
  const end = 4 * Math.log(normalization.groupSize) + 14;
  const step = end / count;
  const values = new Float64Array(count + 1);
  const slopes = new Float64Array(count + 1);
  for (let i = 0; i <= count; i++) {
    values[i] = normalization.gap(i * step);
    slopes[i] = values[i] * normalization.rate(i * step);
  }
  function parts(size) {
    const i = Math.floor(size / step);
    const [rise, u, v] = [values[i + 1] - values[i], slopes[i] * step, slopes[i + 1] * step];
    return { i, t: size / step - i, u, square: 3 * rise - 2 * u - v, cube: u + v - 2 * rise };
  }
  function gap(L) {
    const size = Math.abs(L);
    if (!(size < end)) return normalization.gap(L);
    const { i, t, u, square, cube } = parts(size);
    return values[i] + t * (u + t * (square + t * cube));
  }
  function rate(L) {
    const size = Math.abs(L);
    if (!(size < end)) return normalization.rate(L);
    const { t, u, square, cube } = parts(size);
    return (Math.sign(L) * (u + t * (2 * square + 3 * t * cube))) / step / gap(L);
  }
  return { ...normalization, gap, rate, folds: (b) => crossings(slopes, b, step, normalization.turns.length) };
}

// Where the slope crosses b, as many numbers as the exact folds; those that do not exist are one point.
function crossings(slopes, b, step, turns) {
  const found = [];
  for (let i = 0; i + 1 < slopes.length; i++) {
    if (slopes[i] < b === slopes[i + 1] < b) continue;
    found.push((i + (b - slopes[i]) / (slopes[i + 1] - slopes[i])) * step);
  }
  if (turns === 1) return found.length === 2 ? found : [1, 1];
  return found.length === 3 ? found : [found[0] ?? LIMIT, LIMIT, LIMIT]; // dropped silent groups: Ω has no end
}
