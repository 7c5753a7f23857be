/** One item of the status bar: memory of its limit, and the busiest GPU. */

import { Widget } from '@lumino/widgets';
import { h, setText } from './dom';
import { Monitor } from './monitor';
import { level } from './now';
import { latest } from './series';
import { percent } from './units';

export class StatusItem extends Widget {
  constructor(private readonly _monitor: Monitor, open: () => void) {
    super();
    this.addClass('mlsys-status');
    this._button = h('button', { class: 'mlsys-status-button', type: 'button', title: 'Memory of the limit, and GPU: open the kernel monitor' });
    this._button.addEventListener('click', open);
    this.node.append(this._button);
    _monitor.sampled.connect(this._update, this);
    _monitor.stateChanged.connect(this._update, this);
    this._update();
  }

  private _update(): void {
    const { series, state, now } = this._monitor;
    const known = now !== null && !series.empty && ['live', 'silent', 'resting'].includes(state.kind);
    this._button.hidden = !known;
    if (!known || now === null) {
      return;
    }
    const used = latest(series.host('memory'));
    const limit = latest(series.host('memory_limit'));
    const gpus = now.gpus.map((_, i) => latest(series.gpu(i, 'utilisation'))).filter((v): v is number => v !== null);
    const parts = [`Mem ${percent(used === null || limit === null ? null : used / limit)}`];
    if (gpus.length > 0) {
      parts.push(`GPU ${percent(Math.max(...gpus) / 100)}`);
    }
    setText(this._button, parts.join('  '));
    this._button.dataset.level = level(used, limit);
  }

  private readonly _button: HTMLButtonElement;
}
