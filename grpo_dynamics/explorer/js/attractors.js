// Every attractor of a recursion or a flow, and the regime. What fixed points prove alone, and which orbits decide the
// rest, is as in the package, grpo_dynamics/theory/orbits/critical_orbits.py, where the proofs are.

import { fixedPoints } from "./fixed_points.js";
import { EPSILON } from "./normalization.js";

const RUNS = [32, 64, 192, 768, 3072, 12288];
const LONGEST_PERIODS = [8, 16, 64, 64, 64, 256];
const NEARLY = 1e-9;
const PATIENT = [Infinity, Infinity, Infinity, Infinity, 0.012, 0.004];
export const QUICK = [Infinity, Infinity, 0.12, 0.04, 0.012, 0.004];

// A generator, so that a page can go on in between: it returns {attractors: [{kind, period, low, high}] ascending,
// regime, fixed}.
export function* attractorsInParts(dynamics) {
  const fixed = fixedPoints(dynamics);
  const stable = fixed.points.filter((point) => point.stable);
  const rows = stable.map(({ L }) => ({ kind: "fixed_point", period: 1, low: L, high: L }));
  if (dynamics.kind === "flow") {
    if (2 * stable.length <= fixed.points.length) rows.push({ kind: "one", period: 1, low: Infinity, high: Infinity });
    return named(rows, fixed, fixed.status === "degenerate");
  }
  const seen = survey(dynamics, fixed.points);
  if (seen.one) rows.push({ kind: "one", period: 1, low: Infinity, high: Infinity });
  const onFlip = fixed.points.length > 0 && Math.abs(fixed.points[0].multiplier + 1) < NEARLY;
  const degenerate = fixed.status === "degenerate" || onFlip;
  if (seen.verdict === "two_cycle") rows.push(twoCycle(dynamics, seen.lowest, fixed.points[0].L));
  if (seen.verdict === "one_orbit") {
    const found = yield* settle(dynamics, seen.bottom, seen.ceiling, QUICK);
    if (found.kind !== "fixed_point") rows.push(found);
  }
  if (seen.verdict === "many_orbits") rows.push(...(yield* manyOrbits(dynamics, fixed.points, seen)));
  return named(rows, fixed, degenerate);
}

function named(rows, fixed, degenerate) {
  const found = distinct(rows).sort((a, b) => a.low - b.low);
  return { attractors: found, regime: degenerate ? "degenerate" : regimeOf(found), fixed };
}

function regimeOf(found) {
  const has = (kind) => found.some((row) => row.kind === kind);
  if (has("undecided") || found.length === 0) return "degenerate";
  if (has("irregular")) return "chaotic";
  if (has("cycle")) return "oscillating";
  if (found.length > 1) return "bistable";
  return has("one") ? "saturating" : "one_stable";
}

// What fixed points alone prove: whether orbits are needed to know what attracts beside them, and which.
function survey(dynamics, points) {
  const { alpha, normalization, step, multiplier } = dynamics;
  const { turns } = normalization;
  const one = normalization.gap(Infinity) === Infinity || alpha === 0;
  const ceiling = points.length > 1 ? points[1].L : Infinity;
  const { bottom, top, rises } = turningPoints(dynamics);
  const lowest = step(bottom);
  const back = top > -Infinity && step(top) <= top && turns.length === 1;
  const monotone = rises || alpha === 0 || lowest >= bottom || back;
  const tame = [lowest, ...turns.map((turn) => Math.max(lowest, -turn))].every((x) => multiplier(x) > -1);
  const schwarzian = normalization.kind === "whitened";
  const again = step(lowest);
  const boxed = schwarzian && again <= bottom && lowest >= top;
  const singer = schwarzian && alpha === 1;
  const settled = (boxed || singer) && points.length > 0 && Math.abs(points[0].multiplier) < 1;
  let verdict = singer ? (again > ceiling ? "nothing" : "one_orbit") : "many_orbits";
  if (boxed) verdict = "two_cycle";
  if (monotone || tame || settled || points.length === 0) verdict = "points";
  return { one, verdict, bottom, top, lowest, ceiling };
}

// The last minimum of the map, the maximum left of it (−∞ if none), and whether the map rises everywhere.
export function turningPoints({ alpha, beta, normalization }) {
  if (!(alpha > 0 && alpha < 1)) return { bottom: 0, top: -Infinity, rises: false };
  const [first, second, third = Infinity] = normalization.folds((1 - alpha) * beta);
  if (second - first > 30 * Math.sqrt(EPSILON) * first) return { bottom: -first, top: -second, rises: false };
  return Number.isFinite(third)
    ? { bottom: -third, top: -Infinity, rises: false }
    : { bottom: 0, top: -Infinity, rises: true };
}

// Where the map falls between its lowest value and a repelling fixed point, h∘h rises: bisection finds the 2-cycle.
function twoCycle({ step }, lowest, point) {
  let [low, high] = [lowest, point];
  for (let round = 0; round < 64; round++) {
    const middle = 0.5 * (low + high);
    if (step(step(middle)) >= middle) low = middle;
    else high = middle;
  }
  return { kind: "cycle", period: 2, low, high: step(low) };
}

// Where one orbit is not proved to find all: from both critical points, beside the repelling points, and between.
function* manyOrbits(dynamics, points, seen) {
  const first = points[0].L;
  const second = seen.ceiling;
  const near = 1e-4 * (1 + Math.abs(first));
  let highest = Math.min(Math.max(dynamics.step(seen.lowest), dynamics.step(seen.top)), second);
  if (!Number.isFinite(highest)) highest = seen.bottom + 8;
  const grid = Array.from({ length: 8 }, (_, k) => seen.lowest + ((highest - seen.lowest) * k) / 8);
  const starts = [seen.bottom, seen.top, first - near, first + near, second - 1e-4 * (1 + Math.abs(second)), ...grid];
  const found = [];
  for (const start of starts) {
    if (Number.isFinite(start)) found.push({ start, ...(yield* settle(dynamics, start, seen.ceiling, PATIENT)) });
  }
  if (found.some((row) => row.kind === "cycle")) {
    for (const [i, row] of found.entries()) {
      if (row.kind !== "irregular") continue; // it may be on its way to the cycle
      const later = yield* settle(
        dynamics,
        row.low,
        seen.ceiling,
        RUNS.map(() => Infinity),
      );
      if (later.kind !== "undecided") found[i] = { start: row.start, ...later };
    }
  }
  // what attracts and is no cycle contains a critical point: other orbits that wander are on their way
  const critical = new Set(dynamics.normalization.turns.length === 1 ? [seen.bottom, seen.top] : starts);
  return found.filter((row) => row.kind === "cycle" || (row.kind !== "fixed_point" && critical.has(row.start)));
}

// Follow an orbit until it is clear where it settles; "fixed_point" also for what walks up above the ceiling.
export function* settle(dynamics, start, ceiling, thresholds) {
  const { step, multiplier } = dynamics;
  let state = start;
  let [exponent, least, most] = [0, start, start];
  for (let look = 0; look < thresholds.length; look++) {
    const half = RUNS[look] / 2;
    for (let n = 0; n < half; n++) {
      state = step(state);
      if (n % 512 === 511) yield n;
    }
    let [total, product] = [0, 1];
    [least, most] = [state, state];
    for (let n = 0; n < half; n++) {
      product *= multiplier(state);
      state = step(state);
      [least, most] = [Math.min(least, state), Math.max(most, state)];
      if (n % 8 === 7) [total, product] = [total + Math.log(Math.abs(product)), 1];
      if (n % 512 === 511) yield n;
    }
    exponent = total / half;
    if (state > ceiling) return { kind: "fixed_point", period: 1, low: Infinity, high: Infinity };
    const found = cycleNear(dynamics, state, LONGEST_PERIODS[look]);
    if (found) return found.period === 1 ? { kind: "fixed_point", ...found } : { kind: "cycle", ...found };
    if (exponent > thresholds[look]) return { kind: "irregular", period: 0, low: least, high: most, exponent };
  }
  return { kind: "undecided", period: 0, low: least, high: most, exponent };
}

// The attracting cycle near the state, of a period up to span: a near return, then Newton's method.
function cycleNear(dynamics, state, span) {
  let [now, product, attempts] = [state, 1, 0];
  for (let k = 1; k <= span && attempts < 4; k++) {
    product *= dynamics.multiplier(now);
    now = dynamics.step(now);
    if (Math.abs(product) < 1 && Math.abs(now - state) <= 0.02 * Math.abs(1 - product)) {
      attempts += 1; // a near return may be by chance
      const found = polished(dynamics, state, k);
      if (found) return found;
    }
  }
  return null;
}

function polished({ step, multiplier }, start, period) {
  let [state, move] = [start, Infinity];
  for (let round = 0; round < 7 && !(Math.abs(move) <= 4 * EPSILON * (1 + Math.abs(state))); round++) {
    let [now, product] = [state, 1];
    for (let j = 0; j < period; j++) [now, product] = [step(now), product * multiplier(now)];
    move = (now - state) / (1 - product);
    state += move;
  }
  const close = 1e-3 * EPSILON ** 0.25 * (1 + Math.abs(state));
  if (!(Math.abs(move) <= close && Math.abs(state - start) < 0.1)) return null;
  let [now, product, low, high] = [state, 1, state, state];
  for (let j = 0; j < period; j++) {
    [now, product] = [step(now), product * multiplier(now)];
    [low, high] = [Math.min(low, now), Math.max(high, now)];
    if (Math.abs(now - state) > close) continue;
    return Math.abs(product) < 1 - NEARLY ? { period: j + 1, low, high } : null;
  }
  return null;
}

// Rows that another one shows are left out: cycles by their range; the rest where it overlaps that of a surer row.
function distinct(rows) {
  const sureness = ({ kind }) => (kind === "undecided" ? 0 : kind === "irregular" ? 1 : 2);
  const close = (a, b) => a === b || (Number.isFinite(a) && Math.abs(a - b) <= 1e-6 * (1 + Math.abs(a)));
  return rows.filter((row, i) =>
    rows.every((other, j) => {
      if (i === j) return true;
      const [mine, theirs] = [sureness(row), sureness(other)];
      const equal = row.period === other.period && close(row.low, other.low) && close(row.high, other.high);
      const apart = row.low > other.high || row.high < other.low || other.period === 1 || mine >= 2;
      const shown = !apart && (mine < 1 || theirs < 2);
      return !((equal || shown) && (theirs > mine || (theirs === mine && j < i)));
    }),
  );
}
