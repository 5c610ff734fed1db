/** Waiting with a limit. */

// What a timer of Node can wait at most; it takes more for nothing at all.
const LONGEST_MS = 2 ** 31 - 1;

/** Calls `done` after `ms` milliseconds, however many; the function that calls it off. */
export function after(ms, done) {
  let timer;
  const wait = (left) => {
    const now = Math.min(Math.max(0, left), LONGEST_MS);
    timer = setTimeout(() => (left > now ? wait(left - now) : done()), now);
  };
  if (ms !== Infinity) wait(ms);
  return () => clearTimeout(timer);
}
