/** The panel: one sentence about the kernel, and the sections that have something to show. */

import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { Axis } from './chart';
import { h, setText } from './dom';
import { Monitor } from './monitor';
import { Now } from './now';
import { Section } from './section';
import { sentence } from './state';
import { icon } from './icon';

export class Panel extends Widget {
  constructor(private readonly _monitor: Monitor, id: string, others: Section[] = []) {
    super();
    this.id = id;
    this.addClass('mlsys-panel');
    this.title.icon = icon;
    this.title.caption = 'mlsys-studio: this kernel on its machine';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'mlsys-studio');
    this._axis = new Axis(() => _monitor.series.present());
    this._now = new Now(_monitor.series, this._axis);
    this._sentence = h('button', { class: 'mlsys-sentence', type: 'button', 'aria-live': 'polite' });
    this._sentence.addEventListener('click', () => _monitor.wake());
    this.node.append(this._sentence, this._now.node, ...others.map(section => section.node));
    this._axis.changed.connect(this._draw, this);
    _monitor.stateChanged.connect(this._tell, this);
    _monitor.sampled.connect(this._draw, this);
    this._tell();
  }

  protected onAfterShow(_: Message): void {
    this._draw();
  }

  protected onResize(_: Widget.ResizeMessage): void {
    this._draw();
  }

  dispose(): void {
    this._monitor.stateChanged.disconnect(this._tell, this);
    this._monitor.sampled.disconnect(this._draw, this);
    super.dispose();
  }

  private _tell(): void {
    const state = this._monitor.state;
    this.node.dataset.state = state.kind;
    setText(this._sentence, sentence(state));
    this._sentence.disabled = state.kind !== 'resting';
    const kept = ['live', 'silent', 'resting', 'connecting', 'disconnected'].includes(state.kind);
    if (!kept || this._monitor.series.empty) {
      this._now.show(false);
    }
  }

  /** At most once a frame, and not where nobody sees it. */
  private _draw(): void {
    if (this._frame !== 0 || !this.isVisible) {
      return;
    }
    this._frame = requestAnimationFrame(() => {
      this._frame = 0;
      const now = this._monitor.now;
      if (now !== null && !this.isDisposed) {
        this.node.dataset.samples = String(this._monitor.series.since);
        this.node.dataset.pid = String(now.pid);
        this._now.update(now);
      }
    });
  }

  private _frame = 0;
  private readonly _axis: Axis;
  private readonly _now: Now;
  private readonly _sentence: HTMLButtonElement;
}

