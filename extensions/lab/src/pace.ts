/**
 * How long the panel leaves a kernel alone after an answer. A policy: no clock and no kernel here.
 *
 * A question takes time from the code that runs: at most as long as its answer took. So after an answer the panel waits a
 * hundred times as long, and never asks for more than 1 % of the kernel's time. The ring keeps every sample meanwhile: the
 * lines have no hole, they only come later. A user waits for them no longer than `LONGEST_MS`: an answer that takes longer
 * than a hundredth of that did not work but wait, for a call that holds the interpreter.
 */

export const SAMPLES_AN_ANSWER = 6; // while a cell runs
export const MOST_OF_KERNEL = 0.01;
export const LONGEST_MS = 10_000;
export const IDLE_MS = 3_000;
export const HIDDEN_MS = 15_000;

export interface ISituation {
  hidden: boolean; // nobody sees the page
  busy: boolean; // a cell runs
  lately: boolean; // one did a moment ago, or the user just came
  hertz: number; // samples a second, as the user set it
  spent: number; // ms until all answers since the last pause were there
}

/** Until the next question, ms. */
export function pause({ hidden, busy, lately, hertz, spent }: ISituation): number {
  if (hidden) {
    return HIDDEN_MS;
  }
  const wished = (1000 * SAMPLES_AN_ANSWER) / hertz;
  if (busy) {
    return Math.max(wished, Math.min(spent / MOST_OF_KERNEL, LONGEST_MS));
  }
  return lately ? wished : IDLE_MS;
}
