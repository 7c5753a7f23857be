/** Whose kernel is the one to watch? That of the notebook or console used last. It knows nothing of what is shown. */

import { ILabShell } from '@jupyterlab/application';
import { ISessionContext } from '@jupyterlab/apputils';
import { IConsoleTracker } from '@jupyterlab/console';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISignal, Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';

type Followed = Widget & { sessionContext: ISessionContext };

export class Follower {
  constructor(notebooks: INotebookTracker | null, consoles: IConsoleTracker | null, shell: ILabShell | null) {
    const has = (widget: Widget | null): widget is Followed =>
      widget !== null && ((notebooks?.has(widget) ?? false) || (consoles?.has(widget) ?? false));
    // A tracker's current widget stays current while a text file is in front: so does ours.
    notebooks?.currentChanged.connect((_, widget) => this._follow(widget));
    consoles?.currentChanged.connect((_, widget) => this._follow(widget));
    shell?.currentChanged.connect((_, change) => {
      if (has(change.newValue)) {
        this._follow(change.newValue);
      }
    });
    this._follow(notebooks?.currentWidget ?? consoles?.currentWidget ?? null);
  }

  /** Another document, or another kernel, connection or status of the same one. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get context(): ISessionContext | null {
    return this._widget?.sessionContext ?? null;
  }

  get widget(): Widget | null {
    return this._widget;
  }

  private _follow(widget: Followed | null): void {
    if (widget === this._widget) {
      return;
    }
    const old = this.context;
    if (old !== null) {
      old.kernelChanged.disconnect(this._tell, this);
      old.connectionStatusChanged.disconnect(this._tell, this);
      old.statusChanged.disconnect(this._tell, this);
    }
    this._widget = widget;
    const context = this.context;
    if (context !== null && widget !== null) {
      context.kernelChanged.connect(this._tell, this);
      context.connectionStatusChanged.connect(this._tell, this);
      context.statusChanged.connect(this._tell, this);
      widget.disposed.connect(() => {
        if (this._widget === widget) {
          this._widget = null;
          this._tell();
        }
      });
    }
    this._tell();
  }

  private _tell(): void {
    this._changed.emit();
  }

  private _widget: Followed | null = null;
  private _changed = new Signal<this, void>(this);
}
