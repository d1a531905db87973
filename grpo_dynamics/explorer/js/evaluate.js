// Everything that the page shows of a state, as numbers. What may take long is left to generators.

import { attractorsInParts } from "./attractors.js";
import { integrate, iterate } from "./dynamics.js";
import { fixedPoints } from "./fixed_points.js";
import { limit, limitInParts } from "./limit.js";
import { logit, sigmoid } from "./logodds.js";
import { dynamicsOf } from "./state.js";

const PATIENCE = 4; // milliseconds that one question may take before the picture is drawn

// {…, attractors: null and limit provisional where they are not known yet; rest() goes on, true when all is known}
export function evaluate(state) {
  const { dynamics, start } = dynamicsOf(state);
  const fixed = fixedPoints(dynamics);
  const found = { state, dynamics, start, fixed, limit: null, attractors: null };
  const waiting = [
    { name: "limit", generator: limitInParts(dynamics, start), read: (value) => value },
    { name: "attractors", generator: attractorsInParts(dynamics), read: (value) => value.attractors },
  ];
  found.rest = (milliseconds) => {
    for (const { name, generator, read } of waiting) {
      if (found.settled?.has(name)) continue;
      const end = performance.now() + milliseconds;
      let result = generator.next();
      while (!result.done && performance.now() < end) result = generator.next();
      if (!result.done) continue;
      found[name] = read(result.value);
      found.settled = new Set([...(found.settled ?? []), name]);
    }
    return found.settled?.size === waiting.length;
  };
  found.rest(PATIENCE);
  found.limit ??= limit(dynamics, start, 300);
  found.path =
    dynamics.kind === "flow" ? flowPath(dynamics, start, found.limit) : orbitPath(dynamics, start, found.limit);
  found.orbit = found.path.map(([, L]) => L);
  return found;
}

// As many iterations as it takes to see where it goes: [[n, L]].
function orbitPath(dynamics, start, end) {
  const orbit = iterate(dynamics, start, 120);
  let steps = 60;
  if (end.kind === "fixed_point" || end.kind === "one") {
    const goal = sigmoid(end.L);
    const near = 0.01 * Math.max(Math.abs(sigmoid(start) - goal), 1e-12);
    let last = orbit.length - 1;
    while (last > 0 && Math.abs(sigmoid(orbit[last]) - goal) <= near) last--;
    steps = Math.min(Math.max(Math.ceil(1.5 * (last + 1)) + 2, 10), 120);
  }
  return orbit.slice(0, steps + 1).map((L, n) => [n, L]);
}

// The path over 1.3 times the time that 99 % of the way takes, of a way that ends near 1 until failures are few: [[t, L]].
function flowPath(dynamics, start, end) {
  const goal = Math.min(end.L, Math.max(logit(0.999), start + 3));
  const way = 0.99 * (goal - start);
  let time = 0;
  const parts = 400;
  if (Math.abs(way) > 1e-6) {
    for (let i = 0; i < parts; i++) time += way / parts / dynamics.rate(start + (way * (i + 0.5)) / parts);
  }
  const whole = time > 0 && time < 1e300 ? 1.3 * time : 10 / dynamics.beta;
  const times = Array.from({ length: 121 }, (_, i) => (whole * i) / 120);
  const path = integrate(dynamics, start, times, end.L);
  return path.map((L, i) => [times[i], L]);
}
