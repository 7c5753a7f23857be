/** One measured thing: its name, its value now or at the moment pointed at, and its line over time. */

import { Axis, Chart, IStroke } from './chart';
import { h, setText } from './dom';

export class Meter {
  readonly node: HTMLElement;

  constructor(axis: Axis, readonly name: string, small = false) {
    this._chart = new Chart(axis, name);
    this._value = h('span', { class: 'mlsys-value' }, '–');
    this._detail = h('div', { class: 'mlsys-detail' });
    this._label = h('span', { class: 'mlsys-name', title: name }, name);
    this.node = h('div', { class: small ? 'mlsys-meter mlsys-small' : 'mlsys-meter' }, h('div', { class: 'mlsys-line' }, this._label, this._value), this._chart.node, this._detail);
  }

  /** `level` colours the value: where a limit is near. */
  show(value: string, detail: string, strokes: IStroke[], top: number, limit: number | null = null, level = ''): void {
    setText(this._value, value);
    setText(this._detail, detail);
    this._detail.hidden = detail === '';
    this._value.dataset.level = level;
    this._chart.draw(strokes, top, limit);
    const now = Date.now();
    if (now - this._told > 5_000) {
      this._told = now; // a reader of the screen is not told ten times a second
      this._chart.node.setAttribute('aria-label', `${this.name}: ${value}. ${detail}`);
    }
  }

  private _told = 0;
  private readonly _chart: Chart;
  private readonly _label: HTMLElement;
  private readonly _value: HTMLElement;
  private readonly _detail: HTMLElement;
}
