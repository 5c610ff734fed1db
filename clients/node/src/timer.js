/** Waiting with a limit. */

// The longest wait of a Node timer; a longer one counts as none.
const LONGEST_MS = 2 ** 31 - 1;

/** Calls `done` after `ms` milliseconds, however many; returns the function that cancels it. */
export function after(ms, done) {
  let timer;
  const wait = (left) => {
    const now = Math.min(Math.max(0, left), LONGEST_MS);
    timer = setTimeout(() => (left > now ? wait(left - now) : done()), now);
  };
  if (ms !== Infinity) wait(ms);
  return () => clearTimeout(timer);
}
