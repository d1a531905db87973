// The controls: a slider and a field for each number, lists for the rest. They report what the user wants, no more.

import { complement, logit, sigmoid } from "./logodds.js";
import { KEYS, VARIANTS, matters } from "./state.js";
import { brief } from "./words.js";

const SIZES = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, Infinity];

// A probability to three digits, those of 1 − p near 1.
export function roundedProbability(L) {
  const p = sigmoid(L);
  if (p < 0.5) return Number(p.toPrecision(3));
  const q = Math.max(complement(L), 2 ** -53); // 1 − q is a number below 1
  const [, exponent] = q.toExponential(2).split("e");
  return Math.min(Number((1 - Number(q.toPrecision(3))).toFixed(2 - Number(exponent))), 1 - 2 ** -53);
}

const oddsScale = { min: -13.8, max: 6.9, step: 0.05, value: roundedProbability, place: logit };

// Where a slider stands for a value, and the value where it stands.
const SLIDERS = {
  beta: { min: -3, max: 2, step: 0.01, value: (x) => Number((10 ** x).toPrecision(3)), place: Math.log10 },
  p_ref: oddsScale,
  p0: oddsScale,
  alpha: { min: 0, max: 1, step: 0.01, value: (x) => Number(x.toFixed(2)), place: (x) => x },
  eps: {
    ...{ min: -10, max: 0, step: 0.1 },
    value: (x) => (x <= -10 ? 0 : Number((10 ** x).toPrecision(2))),
    place: (eps) => (eps > 0 ? Math.log10(eps) : -10),
  },
  group_size: {
    ...{ min: 0, max: SIZES.length - 1, step: 1 },
    value: (x) => SIZES[Math.round(x)],
    place: (size) => SIZES.findIndex((known) => known >= size),
  },
};

const LISTS = ["update", "kl", "variant", "eps_placement", "ddof", "silent_groups"];

// ``wanted(change)`` is called with new settings, ``refused(message)`` with one line on bad input.
export function connect(root, wanted, refused) {
  const find = (id) => root.getElementById(id);
  for (const [key, { min, max, step, value }] of Object.entries(SLIDERS)) {
    const slider = find(`${key}-slider`);
    Object.assign(slider, { min, max, step });
    slider.addEventListener("input", () => wanted({ [key]: value(Number(slider.value)) }));
    const field = find(key);
    field.addEventListener("change", () => {
      const read = key === "p0" && field.value.trim() === "" ? null : KEYS[key].read(field.value);
      field.setAttribute("aria-invalid", String(read === undefined));
      if (read === undefined)
        refused(`${key} must be ${KEYS[key].allowed}, got ${JSON.stringify(field.value)}: nothing has changed.`);
      else wanted({ [key]: read });
    });
  }
  for (const key of LISTS) {
    const list = find(key);
    list.addEventListener("change", () => wanted({ [key]: KEYS[key].read(list.value) }));
  }
  find("same-start").addEventListener("click", () => wanted({ p0: null }));

  // Bring every control to the state.
  return function follow(state) {
    for (const [key, { min, max, place }] of Object.entries(SLIDERS)) {
      const value = key === "p0" ? (state.p0 ?? state.p_ref) : state[key];
      const slider = find(`${key}-slider`);
      slider.value = Math.min(Math.max(place(value), min), max);
      slider.setAttribute("aria-valuetext", KEYS[key].write(value));
      const field = find(key);
      if (root.activeElement !== field || field.value !== KEYS[key].write(value)) field.value = shown(key, state);
      field.size = field.value.length > 9 ? field.value.length : 1; // all digits in view
      field.setAttribute("aria-invalid", "false");
      for (const control of [slider, field]) control.disabled = key === "beta" && !matters("beta", state);
    }
    for (const key of LISTS) find(key).value = KEYS[key].write(state[key]);
    for (const key of ["alpha", "kl", "eps", "eps_placement", "ddof", "silent_groups"]) {
      find(`${key}-field`).hidden = !matters(key, state);
    }
    find("details").hidden = !["eps_placement", "ddof", "silent_groups"].some((key) => matters(key, state));
    for (const option of find("variant").options) {
      option.disabled = state.update === "gradient" && VARIANTS[option.value].alpha !== 1;
    }
    const withKl = state.update === "gradient" && state.kl === "k3" && state.group_size >= 3;
    for (const option of find("silent_groups").options) {
      if (option.value === "drop") option.disabled = !VARIANTS[state.variant].whitened;
      if (option.value === "drop_with_kl") option.disabled = !withKl;
    }
    find("same-start").hidden = state.p0 === null;
  };
}

function shown(key, state) {
  if (key === "p0") return state.p0 === null ? "" : String(state.p0);
  if (key === "group_size") return state.group_size === Infinity ? "∞" : String(state.group_size);
  return String(state[key]);
}

export function trainerNotes(preset, state) {
  const lines = [preset.advantage.replace("{G}", state.group_size), preset.pull];
  if (preset.default_beta === 0) lines.push("By default it has no KL term; here it is given the β above.");
  if (preset.beta_factor !== 1) {
    lines.push(
      `Its own β counts as β × ${brief(preset.beta_factor)}: the β above is ${brief(state.beta / preset.beta_factor)} there.`,
    );
  }
  return lines;
}
