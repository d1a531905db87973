// The state of the page: what the URL says, what is allowed, and the dynamics that it describes.

import { DIVERGENCES, flow, recursion } from "./dynamics.js";
import { finiteGroup } from "./group.js";
import { logit } from "./logodds.js";
import { meanOnly, mixedGroups, whitened } from "./normalization.js";

export const VARIANTS = {
  grpo: { whitened: true, alpha: 1, name: "GRPO", note: "Divides by the std; KL to the reference." },
  dr_grpo: { whitened: false, alpha: 1, name: "Dr. GRPO", note: "No division by the std." },
  mirror_grpo: { whitened: true, alpha: 0, name: "Mirror GRPO", note: "KL to the previous policy only." },
  mirror_dr_grpo: {
    whitened: false,
    alpha: 0,
    name: "Mirror Dr. GRPO",
    note: "No std; KL to the previous policy only.",
  },
  two_kl: { whitened: true, alpha: null, name: "Two-KL GRPO", note: "A share α of the KL is to the reference." },
  two_kl_dr_grpo: {
    whitened: false,
    alpha: null,
    name: "Two-KL Dr. GRPO",
    note: "No std; a share α of the KL is to the reference.",
  },
};

const LARGEST_GROUP = 1024;

function number(allowed, test) {
  return {
    allowed,
    read: (text) => {
      const value = text.trim() === "" ? NaN : Number(text);
      return test(value) ? value : undefined;
    },
    write: String,
  };
}

function choice(...names) {
  return {
    allowed: `one of ${names.join(", ")}`,
    read: (text) => (names.includes(text) ? text : undefined),
    write: String,
  };
}

const probability = number("a probability strictly between 0 and 1", (x) => x > 0 && x < 1);

// key: {allowed, read(text) → value or undefined, write, fallback}
export const KEYS = {
  beta: { ...number("a finite number > 0", (x) => x > 0 && x < Infinity), fallback: 1 },
  p_ref: { ...probability, fallback: 0.2 },
  p0: { ...probability, fallback: null, allowed: `${probability.allowed}, or left out to start at p_ref` },
  update: { ...choice("exact", "gradient"), fallback: "exact" },
  kl: { ...choice(...Object.keys(DIVERGENCES)), fallback: "exact" },
  variant: { ...choice(...Object.keys(VARIANTS)), fallback: "grpo" },
  alpha: { ...number("a number between 0 and 1", (x) => x >= 0 && x <= 1), fallback: 0.5 },
  eps: { ...number("a finite number >= 0", (x) => x >= 0 && x < Infinity), fallback: 1e-5 },
  eps_placement: { ...choice("variance", "std"), fallback: "variance" },
  group_size: {
    allowed: `inf, or an integer from 2 to ${LARGEST_GROUP}`,
    read: (text) => {
      if (["inf", "∞", "infinity"].includes(text.trim().toLowerCase())) return Infinity;
      const value = text.trim() === "" ? NaN : Number(text);
      return Number.isInteger(value) && value >= 2 && value <= LARGEST_GROUP ? value : undefined;
    },
    write: (value) => (value === Infinity ? "inf" : String(value)),
    fallback: Infinity,
  },
  ddof: { allowed: "0 or 1", read: (text) => ({ 0: 0, 1: 1 })[text.trim()], write: String, fallback: 0 },
  silent_groups: { ...choice("keep", "drop", "drop_with_kl"), fallback: "keep" },
  trainer: { allowed: "the name of a trainer in the list", read: (text) => text, write: String, fallback: null },
};

export function defaults() {
  return Object.fromEntries(Object.entries(KEYS).map(([key, { fallback }]) => [key, fallback]));
}

// {state, problems}: a bad value leaves its default in place, and a line says key, value and what is allowed.
export function readHash(hash, presets) {
  const [given, problems] = [{}, []];
  for (const part of hash.replace(/^#/, "").split("&")) {
    if (part === "") continue;
    const [key, text] = decoded(part);
    if (!Object.hasOwn(KEYS, key)) {
      problems.push(`${JSON.stringify(key)} is no setting; allowed are ${Object.keys(KEYS).join(", ")}: left out.`);
      continue;
    }
    const value = KEYS[key].read(text);
    const known = key !== "trainer" || presets.some((preset) => preset.id === value);
    if (value !== undefined && known) given[key] = value;
    else {
      const allowed = key === "trainer" ? `one of ${presets.map(({ id }) => id).join(", ")}` : KEYS[key].allowed;
      const fallback = KEYS[key].fallback;
      const instead = fallback === null ? "left out" : `${KEYS[key].write(fallback)} is taken`;
      problems.push(`${key} must be ${allowed}, got ${JSON.stringify(text)}: ${instead}.`);
    }
  }
  const preset = presets.find(({ id }) => id === given.trainer);
  const state = { ...defaults(), ...(preset ? withPreset(defaults(), preset) : {}), ...given };
  for (let conflict = conflictIn(state); conflict; conflict = conflictIn(state)) {
    problems.push(conflict.message);
    state[conflict.key] = KEYS[conflict.key].fallback;
  }
  return { state: withoutStaleTrainer(state, presets), problems };
}

function decoded(part) {
  const at = part.indexOf("=");
  const pieces = at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)];
  return pieces.map((piece) => {
    try {
      return decodeURIComponent(piece);
    } catch {
      return piece; // a lone % stands for itself
    }
  });
}

// Settings that contradict each other: {key, message} of the one that has to give way, or null.
export function conflictIn(state) {
  if (state.silent_groups === "drop" && !VARIANTS[state.variant].whitened && state.group_size < Infinity) {
    return {
      key: "silent_groups",
      message: `silent_groups must be keep with variant ${state.variant}, got "drop": keep is taken.`,
    };
  }
  const withKl = state.silent_groups === "drop_with_kl";
  if (
    withKl &&
    !(state.update === "gradient" && state.kl === "k3" && state.group_size >= 3 && state.group_size < Infinity)
  ) {
    const message =
      'silent_groups must be keep or drop unless update is gradient, kl is k3 and group_size is 3 to 1024, got "drop_with_kl": keep is taken.';
    return { key: "silent_groups", message };
  }
  if (state.update === "gradient" && VARIANTS[state.variant].alpha !== 1) {
    return {
      key: "variant",
      message: `variant must be grpo or dr_grpo with update gradient, got ${JSON.stringify(state.variant)}: grpo is taken.`,
    };
  }
  return null;
}

// β and p_ref always; of the rest what differs from its default.
export function writeHash(state) {
  const parts = [];
  for (const [key, { write, fallback }] of Object.entries(KEYS)) {
    const value = state[key];
    if (key === "beta" || key === "p_ref" || (value !== fallback && value !== null && matters(key, state))) {
      parts.push(`${key}=${encodeURIComponent(write(value))}`);
    }
  }
  return `#${parts.join("&")}`;
}

// Whether a setting has a part in the dynamics as they stand.
export function matters(key, state) {
  const { whitened: divides, alpha } = VARIANTS[state.variant];
  const finite = state.group_size < Infinity;
  if (key === "alpha") return alpha === null && state.update === "exact";
  if (key === "kl") return state.update === "gradient";
  if (key === "eps" || key === "eps_placement") return divides;
  if (key === "ddof") return divides && finite;
  if (key === "silent_groups") return finite;
  if (key === "beta") return !(state.update === "gradient" && DIVERGENCES[state.kl] === "none");
  return true;
}

// The settings that a trainer's options come to; β only where the trainer has a KL term by default.
export function withPreset(state, preset) {
  const { default_beta: beta, settings } = preset;
  return { ...state, ...settings, beta: beta > 0 ? beta : state.beta, trainer: preset.id };
}

export function withoutStaleTrainer(state, presets) {
  const preset = presets.find(({ id }) => id === state.trainer);
  const kept =
    preset && Object.keys(preset.settings).every((key) => key === "group_size" || preset.settings[key] === state[key]);
  const needs = preset && (preset.settings.group_size === Infinity) !== (state.group_size === Infinity);
  return kept && !needs ? state : { ...state, trainer: null };
}

let remembered = { key: "", normalization: null };

export function normalizationOf(state) {
  const { group_size: groupSize, eps, eps_placement: placement, ddof, silent_groups: silent, variant } = state;
  const key = [groupSize, eps, placement, ddof, silent, VARIANTS[variant].whitened].join();
  if (key !== remembered.key) {
    const finite = groupSize < Infinity;
    let made = meanOnly(groupSize);
    if (VARIANTS[variant].whitened) {
      made = finite ? finiteGroup({ groupSize, eps, placement, ddof, silent }) : whitened(eps, placement);
    }
    if (finite && silent === "drop_with_kl") made = mixedGroups(made, groupSize);
    remembered = { key, normalization: made };
  }
  return remembered.normalization;
}

export function alphaOf(state) {
  return state.update === "gradient" ? 1 : (VARIANTS[state.variant].alpha ?? state.alpha);
}

// {dynamics, start}: what the state describes, and the log-odds where it begins.
export function dynamicsOf(state) {
  const normalization = normalizationOf(state);
  const { beta, p_ref: pRef, kl } = state;
  const dynamics =
    state.update === "gradient"
      ? flow({ beta, pRef, normalization, kl })
      : recursion({ beta, pRef, normalization, alpha: alphaOf(state) });
  return { dynamics, start: logit(state.p0 ?? pRef) };
}
