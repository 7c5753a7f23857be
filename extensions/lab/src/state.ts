/** What the panel knows of a kernel, and the one sentence it says about it. No DOM and no network here. */

import { PROTOCOL, VERSION } from './protocol';

export type PanelState =
  | { kind: 'nothing-open' }
  | { kind: 'no-kernel'; name: string }
  | { kind: 'connecting'; kernel: string }
  | { kind: 'starting'; kernel: string }
  | { kind: 'restarting'; kernel: string }
  | { kind: 'disconnected'; kernel: string }
  | { kind: 'dead'; kernel: string }
  | { kind: 'not-python'; kernel: string; language: string }
  | { kind: 'no-subshells'; kernel: string }
  | { kind: 'busy'; kernel: string }
  | { kind: 'not-installed'; python: string }
  | { kind: 'other-version'; version: string; protocol: number }
  | { kind: 'failed'; says: string }
  | { kind: 'silent'; last: Date | null; seconds: number }
  | { kind: 'resting' }
  | { kind: 'live'; host: string; where: string; milliseconds: number };

/** Slower than this, a reply is worth a word: the machine is far away, or has no time. */
export const SLOW_MS = 1000;

export function sentence(state: PanelState): string {
  switch (state.kind) {
    case 'nothing-open':
      return 'Nothing to watch yet: open a notebook or a console.';
    case 'no-kernel':
      return `${state.name} has no kernel; start one to see its machine.`;
    case 'connecting':
      return `Connecting to ${state.kernel}.`;
    case 'starting':
      return `Waiting for the first sample of ${state.kernel}.`;
    case 'restarting':
      return `${state.kernel} restarts; its values come back by themselves.`;
    case 'disconnected':
      return `No connection to ${state.kernel}; JupyterLab tries again by itself.`;
    case 'dead':
      return `${state.kernel} has died; restart it (Kernel menu) to go on.`;
    case 'not-python':
      return `${state.kernel} speaks ${state.language}; only Python kernels can be watched.`;
    case 'no-subshells':
      return `${state.kernel} cannot answer beside a running cell; run %pip install -U "ipykernel>=7" there and restart it.`;
    case 'busy':
      return `${state.kernel} is busy and does not answer yet; the panel connects when it does.`;
    case 'not-installed':
      return `${state.python} lacks mlsys-studio; run %pip install mlsys-studio in the notebook.`;
    case 'other-version':
      return state.protocol < PROTOCOL
        ? `The kernel has mlsys-studio ${state.version}, older than this panel (${VERSION}); run %pip install -U mlsys-studio there and restart it.`
        : `The kernel has mlsys-studio ${state.version}, newer than this panel (${VERSION}); upgrade mlsys-studio-lab where JupyterLab runs, then reload the page.`;
    case 'failed':
      return `The kernel says: ${state.says}.`;
    case 'silent':
      return state.last === null
        ? `The kernel has not answered for ${state.seconds.toFixed(0)} s: some call of its own holds it.`
        : `The kernel has not answered for ${state.seconds.toFixed(0)} s; values are of ${clockTime(state.last)}.`;
    case 'resting':
      return 'Resting, as the kernel has long been idle; click here to look again.';
    case 'live': {
      const where = state.where === '' ? '' : ` (${state.where})`;
      const slow = state.milliseconds > SLOW_MS ? `; it takes ${(state.milliseconds / 1000).toFixed(1)} s to answer` : '';
      return `Live from ${state.host}${where}${slow}.`;
    }
  } // no default: under `strict`, a new kind without a sentence does not compile
}

export function clockTime(moment: Date): string {
  return moment.toTimeString().slice(0, 8);
}
