/**
 * Asks the followed kernel for its state, one question at a time, and says what became of it.
 *
 * The pace is that of the user and of the kernel (`pace`), and not at all after ten idle minutes, lest an open page keep a
 * kernel from being culled.
 */

import { Kernel } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';
import { Follower } from './follow';
import { Answer, Link, NoLink } from './link';
import { HIDDEN_MS, pause } from './pace';
import { expression, IHead, INow, MIME, PROTOCOL } from './protocol';
import { Series } from './series';
import { MainShell } from './shell';
import { PanelState } from './state';

const REST_MS = 10 * 60_000;
const AGAIN_MS = 5_000; // after a state that may pass by itself
const SILENT_MS = 3_000;

export class Monitor implements IDisposable {
  constructor(readonly follower: Follower) {
    follower.changed.connect(this._look, this);
    document.addEventListener('visibilitychange', this._wake);
    this._look();
  }

  /** Samples a second, 1 to 10. While a cell runs each answer brings several. */
  hertz = 2;

  readonly series = new Series();
  now: INow | null = null;

  get state(): PanelState {
    return this._state;
  }

  get stateChanged(): ISignal<this, PanelState> {
    return this._stateChanged;
  }

  /** New samples are in `series`. */
  get sampled(): ISignal<this, INow> {
    return this._sampled;
  }

  get kernel(): Kernel.IKernelConnection | null {
    return this._link?.kernel ?? null;
  }

  /** Somebody looks again. */
  wake(): void {
    this._seenAt = Date.now();
    if (this._state.kind === 'resting') {
      this._set({ kind: 'connecting', kernel: this._name() });
    }
    this._schedule(0);
  }

  /** Another document than `now`; null where it cannot be had. It waits for the question on its way. */
  async document<T extends IHead>(name: string, options: Record<string, string | number | string[]> = {}): Promise<T | null> {
    const link = this._link;
    if (link === null || this._state.kind !== 'live') {
      return null;
    }
    const answer = await this._ask(expression(name, options), link);
    const found = answer?.ok ? (answer.data[MIME] as T | undefined) : undefined;
    return found?.state === 'live' && link === this._link ? found : null;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    this._disposed = true;
    document.removeEventListener('visibilitychange', this._wake);
    window.clearTimeout(this._timer);
    this._drop(true);
    Signal.clearData(this);
  }

  // -- which kernel ----------------------------------------------------------------------------------------------------

  /** What the session says; a line is opened, kept or dropped accordingly. */
  private _look(): void {
    const context = this.follower.context;
    const kernel = context?.session?.kernel ?? null;
    if (context === null || this.follower.widget?.isDisposed) {
      this._drop(true);
      return this._set({ kind: 'nothing-open' });
    }
    if (kernel === null) {
      this._drop(false);
      return this._set(
        context.hasNoKernel || context.isReady
          ? { kind: 'no-kernel', name: context.name || context.path }
          : { kind: 'connecting', kernel: context.kernelDisplayName }
      );
    }
    if (kernel.status === 'restarting' || kernel.status === 'autorestarting') {
      this._drop(false);
      return this._set({ kind: 'restarting', kernel: this._name() });
    }
    if (kernel.status === 'dead' || kernel.status === 'terminating') {
      this._drop(false);
      return this._set({ kind: 'dead', kernel: this._name() });
    }
    if (kernel.connectionStatus !== 'connected') {
      return this._set({ kind: kernel.connectionStatus === 'connecting' ? 'connecting' : 'disconnected', kernel: this._name() });
    }
    if (this._opening?.id !== kernel.id) {
      this._drop(true);
      void this._open(kernel);
    } else if (this._state.kind === 'disconnected' || (this._state.kind === 'resting' && this._main?.busy)) {
      this._schedule(0);
    }
  }

  private async _open(kernel: Kernel.IKernelConnection): Promise<void> {
    this._opening = kernel;
    this._main = new MainShell(kernel);
    this._set({ kind: 'connecting', kernel: this._name() });
    this.series.clear();
    this.now = null;
    try {
      const language = await Promise.race([kernel.info.then(info => info.language_info.name), later(1_000, 'python')]);
      if (language !== 'python') {
        return this._set({ kind: 'not-python', kernel: this._name(), language });
      }
      const link = await Link.open(kernel);
      if (this._opening !== kernel || this._disposed) {
        return link.close(true);
      }
      this._link = link;
      this._where = await place(kernel);
      this._seenAt = Date.now();
      this._schedule(0);
    } catch (error) {
      if (this._opening !== kernel) {
        return;
      }
      const reason = error instanceof NoLink ? error.reason : 'busy';
      this._set({ kind: reason, kernel: this._name() });
      if (reason === 'busy') {
        this._timer = window.setTimeout(() => this._opening === kernel && void this._open(kernel), AGAIN_MS);
      }
    }
  }

  private _drop(alive: boolean): void {
    window.clearTimeout(this._timer);
    this._opening = null;
    this._main?.dispose();
    this._main = null;
    this._link?.close(alive && this._link.kernel.status !== 'dead');
    this._link = null;
    this._asking = false;
    this._line = Promise.resolve(null);
  }

  // -- the question ----------------------------------------------------------------------------------------------------

  private _schedule(milliseconds: number): void {
    window.clearTimeout(this._timer);
    this._timer = window.setTimeout(() => void this._poll(), milliseconds);
  }

  private async _poll(): Promise<void> {
    const link = this._link;
    if (link === null || this._asking || this._disposed) {
      return;
    }
    this._asking = true;
    const asked = performance.now();
    const watch = window.setInterval(() => {
      const waited = performance.now() - asked;
      if (this._link === link && waited > SILENT_MS) {
        this._set({ kind: 'silent', last: this._last, seconds: waited / 1000 });
      }
    }, 1_000);
    const options = { reader: READER, hertz: this.hertz, since: this.series.since, step: this.series.step };
    const answer = await this._ask(expression('now', options), link);
    window.clearInterval(watch);
    if (this._link !== link) {
      return; // another kernel is shown by now
    }
    this._asking = false;
    if (answer === null) {
      this._drop(['idle', 'busy'].includes(link.kernel.status));
      this._timer = window.setTimeout(() => this._look(), 500);
      return;
    }
    await this._take(answer, performance.now() - asked, link);
  }

  /** One question after the other. */
  private _ask(code: string, link: Link): Promise<Answer | null> {
    const turn = this._line.then(async () => {
      const asked = performance.now();
      const answer = await link.ask(code).catch(() => null);
      this._spent += performance.now() - asked;
      return answer;
    });
    this._line = turn;
    return turn;
  }

  private async _take(answer: Answer, milliseconds: number, link: Link): Promise<void> {
    if (!answer.ok) {
      await this._explain(answer, link);
      return this._schedule(AGAIN_MS);
    }
    const found = answer.data[MIME] as INow | undefined;
    if (found === undefined || found.protocol !== PROTOCOL) {
      this._set({ kind: 'other-version', version: found?.version ?? 'unknown', protocol: found?.protocol ?? 0 });
      return this._schedule(HIDDEN_MS);
    }
    if (found.state === 'failed') {
      this._set({ kind: 'failed', says: (found.sentence ?? '').replace(/\.$/, '') });
      return this._schedule(AGAIN_MS);
    }
    if (found.starting) {
      this._set({ kind: 'starting', kernel: this._name() });
      this._spent = 0; // it loaded what all later answers need
      return this._schedule(200);
    }
    this.now = found;
    this._last = new Date();
    this.series.add(found);
    this._set({ kind: 'live', host: found.host, where: this._where, milliseconds });
    this._sampled.emit(found);
    if (!this._main?.busy && Date.now() - Math.max(this._seenAt, this._main?.lastBusy ?? 0) > REST_MS) {
      return this._set({ kind: 'resting' });
    }
    this._schedule(this._period());
  }

  /** An error of the expression itself: the package is not there, or is no relative of ours. */
  private async _explain(answer: { name: string; text: string }, link: Link): Promise<void> {
    const python = await link.ask("__import__('sys').executable").catch(() => null);
    const path = python?.ok ? String(python.data['text/plain']).replace(/^'|'$/g, '') : 'The kernel';
    if (this._link !== link) {
      return;
    }
    if (answer.name === 'ModuleNotFoundError' && answer.text.includes("'mlsys_studio'")) {
      this._set({ kind: 'not-installed', python: path });
    } else if (answer.name === 'ModuleNotFoundError' || answer.name === 'AttributeError') {
      this._set({ kind: 'other-version', version: 'without a panel', protocol: 0 });
    } else {
      this._set({ kind: 'failed', says: `${answer.name}: ${answer.text}`.slice(0, 300) });
    }
  }

  private _period(): number {
    const spent = this._spent;
    this._spent = 0;
    return pause({
      hidden: document.hidden,
      busy: (this._main?.busy ?? false) || this.series.stepsSince(5).length > 0,
      lately: Date.now() - Math.max(this._seenAt, this._main?.lastBusy ?? 0) < 5_000,
      hertz: this.hertz,
      spent
    });
  }

  private _name(): string {
    return this.follower.context?.kernelDisplayName ?? 'The kernel';
  }

  private _set(state: PanelState): void {
    if (!this._disposed) {
      this._state = state;
      this._stateChanged.emit(state);
    }
  }

  private _wake = (): void => {
    if (!document.hidden && this._link !== null && this._state.kind !== 'resting') {
      this._schedule(0);
    }
  };

  private _state: PanelState = { kind: 'nothing-open' };
  private _link: Link | null = null;
  private _opening: Kernel.IKernelConnection | null = null;
  private _line: Promise<Answer | null> = Promise.resolve(null);
  private _asking = false;
  private _spent = 0; // ms, for answers since the last pause
  private _disposed = false;
  private _timer = 0;
  private _main: MainShell | null = null;
  private _seenAt = Date.now();
  private _last: Date | null = null;
  private _where = '';
  private _stateChanged = new Signal<this, PanelState>(this);
  private _sampled = new Signal<this, INow>(this);
}

/** This page, among those that look at one kernel. */
const READER = Math.random().toString(36).slice(2);

/** How the kernel was reached, where it is not the server's own process. */
async function place(kernel: Kernel.IKernelConnection): Promise<string> {
  try {
    const metadata = (await kernel.spec)?.metadata as { kernel_provisioner?: { provisioner_name?: string } } | undefined;
    const name = metadata?.kernel_provisioner?.provisioner_name ?? '';
    return name === '' || name === 'local-provisioner' ? '' : `another machine, by ${name}`;
  } catch {
    return '';
  }
}

function later<T>(milliseconds: number, value: T): Promise<T> {
  return new Promise(resolve => window.setTimeout(() => resolve(value), milliseconds));
}
