/**
 * What the main shell of a kernel does, whatever its subshells do beside it.
 *
 * A kernel says "busy" and "idle" around every message, those of a subshell too, and JupyterLab (4.6) takes the last word
 * for the whole kernel: after each of our questions the status bar would say "Idle" under a cell that runs. The header of
 * a subshell's message names it, so here these words are told apart, and the connection's status is put right again at
 * once, before anything is drawn. That needs a method which is private there; without it the status bar may flicker.
 */

import { Kernel, KernelMessage } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';

export class MainShell implements IDisposable {
  constructor(private readonly _kernel: Kernel.IKernelConnection) {
    this.busy = _kernel.status === 'busy';
    this._settled = _kernel.status === 'busy' || _kernel.status === 'idle';
    if (this.busy) {
      this.lastBusy = Date.now();
    }
    _kernel.iopubMessage.connect(this._hear, this);
  }

  busy: boolean;
  /** When a cell last began or ended, ms; that the panel came counts too. */
  lastBusy = Date.now();

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    this._disposed = true;
    this._kernel.iopubMessage.disconnect(this._hear, this);
  }

  private _hear(_: Kernel.IKernelConnection, message: KernelMessage.IIOPubMessage): void {
    if (!KernelMessage.isStatusMsg(message)) {
      return;
    }
    const state = message.content.execution_state;
    const parent = message.parent_header as KernelMessage.IHeader;
    if (parent.subshell_id) {
      this._putRight();
    } else if ((state === 'busy' || state === 'idle') && parent.msg_type === 'execute_request') {
      this.busy = state === 'busy';
      this.lastBusy = Date.now();
      this._settled = true;
    }
  }

  private _putRight(): void {
    const { status } = this._kernel;
    const meant = this.busy ? 'busy' : 'idle';
    const set = (this._kernel as unknown as { _updateStatus?: (status: string) => void })._updateStatus;
    if (this._settled && status !== meant && (status === 'busy' || status === 'idle')) {
      set?.call(this._kernel, meant);
    }
  }

  private _settled: boolean;
  private _disposed = false;
}
