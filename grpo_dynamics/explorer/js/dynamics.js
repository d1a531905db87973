// The two kinds of dynamics. A recursion minimises exactly in each iteration; a flow is what many small steps follow.

import { complement, logit, sigmoid } from "./logodds.js";

// Whose gradient each KL term is on average: of KL(π‖π_ref), of KL(π_ref‖π), or of nothing.
export const DIVERGENCES = {
  exact: "reverse",
  k2: "reverse",
  k1_in_reward: "reverse",
  k1_times_ratio: "reverse",
  k3_times_ratio: "reverse",
  k3: "forward",
  k1: "none",
  none: "none",
};

// L_n = α·L_ref + (1−α)·L_{n−1} + Ω(L_{n−1})/β
export function recursion({ beta, pRef, normalization, alpha }) {
  const anchor = logit(pRef);
  const [drift, keep] = [alpha * anchor, 1 - alpha];
  const { gap, rate } = normalization;
  const step = (L) => drift + (keep > 0 ? keep * L : 0) + gap(L) / beta;
  const multiplier = (L) => keep + (gap(L) * rate(L)) / beta;
  return { kind: "recursion", beta, pRef, anchor, normalization, alpha, step, multiplier };
}

// dL/dt = p(1−p)·Ω(L) − β·R(L)
export function flow({ beta, pRef, normalization, kl }) {
  const anchor = logit(pRef);
  const divergence = DIVERGENCES[kl];
  const { gap, rate: gapRate } = normalization;
  function rate(L) {
    const root = Math.exp(-0.5 * Math.abs(L));
    const inverse = 1 / (1 + root * root) ** 2;
    let push = gap(L);
    if (push === Infinity) push = gap(700 * Math.sign(L));
    const drive = root * push * (root * inverse);
    const d = L - anchor;
    if (divergence === "none") return drive;
    if (divergence === "reverse") return drive - beta * (Number.isFinite(d) ? root * root * inverse * d : 0);
    const pull = d > 0 ? -sigmoid(L) * (1 - pRef) * Math.expm1(-d) : complement(L) * pRef * Math.expm1(d);
    return drive - beta * pull;
  }
  // S = R/(p(1−p)), without cancellation on either side
  function restoring(L) {
    const d = L - anchor;
    if (divergence === "none") return 0;
    if (divergence === "reverse") return d;
    return d > 0
      ? -Math.expm1(-d) * (1 - pRef + (1 - pRef) * Math.exp(L))
      : Math.expm1(d) * (pRef + pRef * Math.exp(-L));
  }
  function restoringSlope(L) {
    if (divergence !== "forward") return divergence === "none" ? 0 : 1;
    return (1 - pRef) * Math.exp(L) + pRef * Math.exp(-L);
  }
  // the whole natural-gradient step of time 1/β: the flow is made of small parts of it
  const step = (L) => (divergence === "reverse" ? anchor + gap(L) / beta : L + (gap(L) / beta - restoring(L)));
  const multiplier = (L) => 1 - restoringSlope(L) + (gap(L) * gapRate(L)) / beta;
  return {
    kind: "flow",
    beta,
    pRef,
    anchor,
    normalization,
    kl,
    divergence,
    alpha: 1,
    rate,
    restoring,
    step,
    multiplier,
  };
}

export function iterate(dynamics, start, steps) {
  const orbit = [start];
  for (let n = 0; n < steps; n++) orbit.push(dynamics.step(orbit[n]));
  return orbit;
}

// The path of a flow at ascending times, by the embedded pair of Dormand and Prince with steps to 1e-12.
// Where it is known, ``rest`` is where the path ends: steps for nothing but to stay there are left out.
export function integrate(flowing, start, times, rest = NaN) {
  const f = flowing.rate;
  const path = [];
  let [L, t, slope] = [start, 0, f(start)];
  let h = 0.01 / (1 + Math.abs(slope));
  for (const goal of times) {
    while (t < goal && !(Math.abs(L - rest) < 1e-9 * (1 + Math.abs(rest)))) {
      const size = Math.min(h, goal - t);
      const { next, error, last } = dormandPrince(f, L, slope, size);
      const ratio = error / (1e-12 * (1 + Math.abs(L)));
      if (ratio <= 1 || size < 1e-14 * goal) {
        [L, slope] = [next, last];
        t = size === goal - t ? goal : t + size;
      }
      // a step cut short by a goal says nothing against a longer one
      if (ratio <= 1 && size < h) continue;
      h = size * (Number.isFinite(ratio) ? Math.min(Math.max(0.9 * Math.max(ratio, 1e-9) ** -0.2, 0.2), 5) : 0.2);
    }
    path.push(L);
  }
  return path;
}

function dormandPrince(f, y, k1, h) {
  const k2 = f(y + (h * k1) / 5);
  const k3 = f(y + h * ((3 / 40) * k1 + (9 / 40) * k2));
  const k4 = f(y + h * ((44 / 45) * k1 - (56 / 15) * k2 + (32 / 9) * k3));
  const k5 = f(y + h * ((19372 / 6561) * k1 - (25360 / 2187) * k2 + (64448 / 6561) * k3 - (212 / 729) * k4));
  const k6 = f(
    y + h * ((9017 / 3168) * k1 - (355 / 33) * k2 + (46732 / 5247) * k3 + (49 / 176) * k4 - (5103 / 18656) * k5),
  );
  const next = y + h * ((35 / 384) * k1 + (500 / 1113) * k3 + (125 / 192) * k4 - (2187 / 6784) * k5 + (11 / 84) * k6);
  const k7 = f(next);
  const error =
    h * ((71 / 57600) * k1 - (71 / 16695) * k3 + (71 / 1920) * k4 - (17253 / 339200) * k5 + (22 / 525) * k6 - k7 / 40);
  return { next, error: Math.abs(error), last: k7 };
}
