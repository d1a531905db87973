// The plane of β and p_ref. At given β a fixed point at L belongs to L_ref = R(L) = L − Ω(L)/(αβ): folds and flips of
// a row are numbers, no search. Only where the low fixed point overshoots do orbits decide, and those can wait.

import { QUICK, settle, turningPoints } from "./attractors.js";
import { recursion } from "./dynamics.js";
import { finish } from "./limit.js";
import { sigmoid } from "./logodds.js";
import { LIMIT } from "./normalization.js";

export const PLANE = { beta: [1e-3, 1e2], L: [-13.8, 6.9] };
export const [ONE, BISTABLE, OSCILLATING, CHAOTIC] = [0, 1, 2, 3];

export const LOWEST = Math.log(5e-324); // no p_ref lies below

const PLACES = Array.from({ length: 257 }, (_, i) => PLANE.L[0] + ((40 - PLANE.L[0]) * i) / 256);

// The L_ref at which fixed points come and go, and those between which the low one overshoots.
export function thresholds({ normalization, alpha, beta }) {
  const reference = (L) => (L < LIMIT ? L - normalization.gap(L) / (alpha * beta) : -Infinity);
  const folds = normalization.folds(alpha * beta);
  const [first, second] = normalization.folds((2 - alpha) * beta);
  const flips =
    second - first > 5e-7 * first ? [reference(-first), second < LIMIT ? reference(-second) : -Infinity] : null;
  return { folds, references: folds.map(reference), flips };
}

// The L_ref down to which, from the flip on, orbits beside the low fixed point stay below the border: there they oscillate.
// With α = 1 they all come to lie between h(0) and h(h(0)). The flip itself if they leave at once.
export function lowestHeld({ normalization, beta }, { folds, references, flips }) {
  const { gap } = normalization;
  function leaves(anchor) {
    if (!(anchor > references[1] && anchor < references[0])) return false; // no second fixed point, no border
    const highest = anchor + gap(anchor + gap(0) / beta) / beta;
    return highest >= folds[1] || (highest > folds[0] && anchor + gap(highest) / beta > highest);
  }
  const end = Math.max(flips[1], LOWEST);
  let [held, left] = [flips[0], null];
  for (let down = 0; left === null && held > end; down = Math.max(1.15 * down, 0.01)) {
    const next = Math.max(flips[0] - down, end);
    if (leaves(next)) left = next;
    else held = next;
  }
  if (left === null || left === flips[0]) return left ?? end;
  for (let round = 0; round < 40; round++) {
    const middle = 0.5 * (held + left);
    if (leaves(middle)) left = middle;
    else held = middle;
  }
  return held;
}

// Labels and the p* of cells with one stable state; ``waiting`` are the cells whose label is left to orbits.
// model: {kind, alpha, divergence, normalization}
export function regions(model, width, height) {
  const anchors = axisValues(width, PLANE.L);
  const betas = axisValues(height, PLANE.beta.map(Math.log)).map(Math.exp);
  const plane = { model, width, height, anchors, betas, waiting: [] };
  plane.label = new Uint8Array(width * height);
  plane.share = new Float32Array(width * height).fill(1);
  if (model.divergence === "none" || model.alpha === 0) return plane;
  const gaps = PLACES.map(model.normalization.gap);
  const fill = model.divergence === "forward" ? fillForward : fillRow;
  for (let row = 0; row < height; row++) fill(plane, row, gaps);
  return plane;
}

function axisValues(count, [low, high]) {
  return Array.from({ length: count }, (_, i) => low + ((high - low) * (i + 0.5)) / count);
}

function fillRow(plane, row, gaps) {
  const { model, width, anchors, betas } = plane;
  const { normalization, alpha } = model;
  const pull = alpha * betas[row];
  const { folds, references, flips } = thresholds({ normalization, alpha, beta: betas[row] });
  const endless = normalization.gap(Infinity) === Infinity;
  let place = 0;
  for (let column = 0; column < width; column++) {
    const anchor = anchors[column];
    const cell = row * width + column;
    let [stable, below] = [endless ? 1 : 0, true]; // whether b·d < Ω at the last fold: Ω is passed on rising pieces
    for (let i = 0; i <= references.length; i++) {
      const above = i < references.length ? references[i] > anchor : !endless;
      if (i % 2 === 0 && below && above) stable += 1;
      below = !above;
    }
    if (stable > 1) plane.label[cell] = BISTABLE;
    if (model.kind === "recursion" && flips && anchor < flips[0] && anchor > flips[1]) plane.waiting.push(cell);
    if (references[0] <= anchor) while (place < PLACES.length && PLACES[place] < folds[1]) place++; // the upper branch
    while (place < PLACES.length && PLACES[place] - gaps[place] / pull < anchor) place++;
    if (place < PLACES.length) plane.share[cell] = sigmoid(PLACES[place]);
  }
}

// At a fixed point of a flow with k3, p_ref = p − p(1−p)·Ω/β: it rises with p.
function fillForward(plane, row, gaps) {
  const { width, anchors, betas } = plane;
  const references = PLACES.map((L, i) => {
    const [p, q] = [sigmoid(L), sigmoid(-L)];
    const odds = (p * (1 - (q * gaps[i]) / betas[row])) / (q * (1 + (p * gaps[i]) / betas[row]));
    return odds > 0 ? Math.log(odds) : -Infinity;
  });
  let place = 0;
  for (let column = 0; column < width; column++) {
    while (place < PLACES.length && references[place] < anchors[column]) place++;
    if (place < PLACES.length) plane.share[row * width + column] = sigmoid(PLACES[place]);
  }
}

// Decide a waiting cell by the orbit of the lowest value that the map comes back to.
export function decide(plane, cell) {
  const { width, anchors, betas, model } = plane;
  const { normalization, alpha } = model;
  const [beta, anchor] = [betas[Math.floor(cell / width)], anchors[cell % width]];
  const dynamics = recursion({ beta, pRef: sigmoid(anchor), normalization, alpha });
  const { folds, references } = thresholds({ normalization, alpha, beta });
  const two = references[0] > anchor && references[1] < anchor;
  const ceiling = two ? repelling(normalization, alpha * beta, anchor, folds) : Infinity;
  const found = finish(settle(dynamics, turningPoints(dynamics).bottom, ceiling, QUICK.slice(0, 5)));
  if (found.kind === "irregular") plane.label[cell] = CHAOTIC;
  else if (found.kind !== "fixed_point") plane.label[cell] = OSCILLATING;
  else if (found.low === Infinity) [plane.label[cell], plane.share[cell]] = [ONE, 1];
}

// The repelling fixed point between the folds, to the accuracy of a picture.
function repelling(normalization, pull, anchor, [low, high]) {
  for (let round = 0; round < 30; round++) {
    const middle = 0.5 * (low + high);
    if (pull * (middle - anchor) > normalization.gap(middle)) low = middle;
    else high = middle;
  }
  return high;
}

// Fold and flip curves with L as parameter, β = Ω'(L)/α and β = Ω'(L)/(2−α), as lists of [L_ref, β].
export function curves({ kind, normalization, alpha, divergence }) {
  const [fold, flip] = [[], []];
  if (divergence === "forward" || divergence === "none" || alpha === 0) return { fold, flip };
  for (let i = 1; i <= 900; i++) {
    const L = 0.05 * i;
    const gap = normalization.gap(L);
    const slope = gap * normalization.rate(L);
    if (!(slope > 1e-7)) continue;
    fold.push([L - gap / slope, slope / alpha]);
    const beta = slope / (2 - alpha);
    if (kind === "recursion") flip.push([-L - gap / (alpha * beta), beta]);
  }
  return { fold, flip };
}
