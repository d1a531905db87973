// Where an orbit goes. A fixed point is recognised long before the orbit is there: the map rises from the state all
// the way to it, or contracts around it as far as the state (Banach). A cycle is recognised when the orbit returns.

import { fixedPoints } from "./fixed_points.js";
import { EPSILON } from "./normalization.js";

const LONGEST_PERIOD = 64;

// A generator, so that a page can go on in between: it returns {kind, period, L, low, high, steps, orbit}, kind one of
// "fixed_point", "cycle", "one", "irregular", "undecided"; orbit holds the first states.
export function* limitInParts(dynamics, start, maxSteps = 20000) {
  const { points } = fixedPoints(dynamics);
  const places = points.map((point) => point.L);
  if (dynamics.kind === "flow") return ofFlow(dynamics, start, places);
  let [state, done, growth, counted] = [start, 0, 0, 0];
  const lengths = [0, 2, 6, 24, 96];
  while (true) {
    const steps = Math.min(lengths.length ? lengths.shift() : 4 * LONGEST_PERIOD, maxSteps - done);
    const orbit = [state];
    for (let n = 0; n < steps; n++) orbit.push((state = dynamics.step(state)));
    done += steps;
    const goal = destination(dynamics, state, places);
    if (goal !== null) {
      const kind = Number.isFinite(goal) ? "fixed_point" : "one";
      return { kind, period: 1, L: goal, low: goal, high: goal, steps: done };
    }
    const found = periodOf(dynamics, orbit);
    if (found.period > 1) return { kind: "cycle", L: state, steps: done, ...found };
    if (done > Math.floor(maxSteps / 2)) {
      counted += steps;
      for (let n = 0; n < steps; n++) growth += Math.log(Math.abs(dynamics.multiplier(orbit[n])));
    }
    if (done >= maxSteps) {
      const kind = growth > 0.005 * counted ? "irregular" : "undecided";
      return { kind, L: state, steps: done, ...found, period: 0 };
    }
    yield done;
  }
}

export function finish(generator) {
  let result = generator.next();
  while (!result.done) result = generator.next();
  return result.value;
}

export function limit(dynamics, start, maxSteps) {
  return finish(limitInParts(dynamics, start, maxSteps));
}

// A flow moves to the next fixed point in the direction of its rate, or to p = 1.
function ofFlow(dynamics, start, places) {
  const rounding = (x) => 16 * EPSILON * (Math.abs(start) + Math.abs(x - start) + 1);
  const at = places.filter((x) => Math.abs(x - start) <= rounding(x)).pop();
  const above = places.find((x) => x > start) ?? Infinity;
  const below = places.filter((x) => x < start).pop() ?? -Infinity;
  const goal = at ?? (dynamics.rate(start) > 0 ? above : below);
  const kind = goal < Infinity ? "fixed_point" : "one";
  return { kind, period: 1, L: goal, low: goal, high: goal, steps: 0 };
}

// The fixed point, or Infinity, to which the orbit provably goes from here; null where neither argument applies.
function destination(dynamics, state, places) {
  if (!Number.isFinite(state)) return state;
  const { turns } = dynamics.normalization;
  // smallest and largest multiplier on [low, high]: at an end, or where Ω' turns
  function range(low, high) {
    let [least, most] = [Infinity, -Infinity];
    const inner = turns.flatMap((turn) => [-turn, turn]).map((x) => Math.min(Math.max(x, low), high));
    for (const x of [low, high, ...inner]) {
      const value = dynamics.multiplier(x);
      [least, most] = [Math.min(least, value), Math.max(most, value)];
    }
    return [least, most];
  }
  let nearest = null;
  for (const x of places) if (nearest === null || Math.abs(x - state) <= Math.abs(nearest - state)) nearest = x;
  if (nearest !== null) {
    const reach = Math.abs(state - nearest);
    const [least, most] = range(nearest - reach, nearest + reach);
    if (least > -1 && most < 1) return nearest;
  }
  const rises = dynamics.step(state) > state;
  const ahead = rises
    ? (places.find((x) => x > state) ?? Infinity)
    : (places.filter((x) => x < state).pop() ?? -Infinity);
  if (ahead === -Infinity) return null;
  return range(Math.min(state, ahead), Math.max(state, ahead))[0] >= 0 ? ahead : null;
}

// Shortest attracting period at the end of an orbit, 0 if none, and the range that it visits.
function periodOf(dynamics, orbit) {
  const end = orbit.length - 1;
  const last = orbit[end];
  const close = 3 * EPSILON ** (2 / 3);
  let [period, low, high, product, nearly] = [0, last, last, 1, false];
  for (let k = 1; k <= Math.min(LONGEST_PERIOD, end) && !period; k++) {
    const state = orbit[end + 1 - k];
    product *= dynamics.multiplier(state);
    [low, high] = [Math.min(low, state), Math.max(high, state)];
    const back = Math.abs(last - orbit[end - k]);
    // what is left to go is small beside the width: no fixed point approached slowly
    const found = back <= close * (1 + Math.abs(last)) && back < 0.01 * (1 - Math.abs(product)) * (high - low);
    if (found && !nearly) period = k;
    nearly ||= back <= 100 * close * (1 + Math.abs(last));
  }
  return { period, low, high };
}
