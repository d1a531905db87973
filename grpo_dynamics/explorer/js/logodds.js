// The state is the log-odds L = log(p / (1 − p)): p rounds to 1 at L = 37, fixed points lie far beyond.

export function logit(p) {
  const failure = 1 - p;
  // near 1/2 the logarithm of a number near 1 would cancel; 2p − 1 is exact there
  return Math.abs(p - 0.5) < 0.25 ? Math.log1p((2 * p - 1) / failure) : Math.log(p / failure);
}

export function sigmoid(L) {
  const t = Math.exp(-Math.abs(L));
  return (L >= 0 ? 1 : t) / (1 + t);
}

export function complement(L) {
  return sigmoid(-L);
}
