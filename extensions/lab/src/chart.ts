/**
 * Lines over time on a canvas. All charts of a panel share one axis: where the pointer is on one, the others show the
 * same moment; what is brushed on one is what all of them show.
 */

import { ISignal, Signal } from '@lumino/signaling';
import { ILine } from './series';

export interface IStroke {
  line: ILine;
  colour: string; // a CSS variable or colour
  fill?: boolean;
}

const MARGIN_TOP = 3;
const KEY_STEP_S = 1;

/** What part of time is shown, and which moment is pointed at. Seconds of the kernel's clock. */
export class Axis {
  /** The span shown while nothing is brushed. */
  span = 120;
  brushed: [number, number] | null = null;
  pointed: number | null = null;

  constructor(readonly present: () => number) {}

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get range(): [number, number] {
    const end = this.present();
    return this.brushed ?? [end - this.span, end];
  }

  point(time: number | null): void {
    this.pointed = time;
    this._changed.emit();
  }

  brush(range: [number, number] | null): void {
    this.brushed = range;
    this._changed.emit();
  }

  private _changed = new Signal<this, void>(this);
}

export class Chart {
  readonly node: HTMLCanvasElement;

  constructor(readonly axis: Axis, label: string) {
    this.node = document.createElement('canvas');
    this.node.className = 'mlsys-chart';
    this.node.tabIndex = 0;
    this.node.setAttribute('role', 'img');
    this.node.setAttribute('aria-label', label);
    this.node.title = 'Point to read a moment, drag to enlarge, double-click or Escape to see all';
    this._listen();
  }

  /** `top`: the value at the upper edge; `limit` draws a line where it is below that. */
  draw(strokes: IStroke[], top: number, limit: number | null = null): void {
    const { width, height } = this._fit();
    const context = this.node.getContext('2d');
    if (context === null || width === 0) {
      return;
    }
    const style = getComputedStyle(this.node);
    const ink = (colour: string) => (colour.startsWith('--') ? style.getPropertyValue(colour).trim() : colour);
    const [from, to] = this.axis.range;
    const x = (time: number) => ((time - from) / (to - from)) * width;
    const y = (value: number) => height - (Math.min(value, top) / top) * (height - MARGIN_TOP);
    context.clearRect(0, 0, width, height);
    for (const stroke of strokes) {
      context.strokeStyle = context.fillStyle = ink(stroke.colour);
      context.lineWidth = 1.5;
      trace(context, stroke, x, y, from, to, height);
    }
    if (limit !== null && limit <= top) {
      context.strokeStyle = ink('--jp-error-color1');
      context.setLineDash([4, 3]);
      rule(context, 0, y(limit), width, y(limit));
      context.setLineDash([]);
    }
    const pointed = this.axis.pointed;
    if (pointed !== null && pointed >= from && pointed <= to) {
      context.strokeStyle = ink('--jp-ui-font-color2');
      context.lineWidth = 1;
      rule(context, x(pointed), 0, x(pointed), height);
    }
    if (this._from !== null && pointed !== null) {
      context.fillStyle = ink('--jp-ui-font-color2');
      context.globalAlpha = 0.2;
      context.fillRect(x(this._from), 0, x(pointed) - x(this._from), height);
      context.globalAlpha = 1;
    }
  }

  /** The canvas in device pixels, as large as its box. */
  private _fit(): { width: number; height: number } {
    const width = this.node.clientWidth;
    const height = this.node.clientHeight;
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.node.width !== w || this.node.height !== h) {
      this.node.width = w;
      this.node.height = h;
    }
    this.node.getContext('2d')?.setTransform(ratio, 0, 0, ratio, 0, 0);
    return { width, height };
  }

  private _listen(): void {
    const node = this.node;
    const time = (event: PointerEvent) => {
      const [from, to] = this.axis.range;
      return from + (event.offsetX / Math.max(1, node.clientWidth)) * (to - from);
    };
    node.addEventListener('pointerdown', event => {
      this._from = time(event);
      node.setPointerCapture(event.pointerId);
    });
    node.addEventListener('pointermove', event => this.axis.point(time(event)));
    node.addEventListener('pointerleave', () => this.axis.point(null));
    node.addEventListener('pointerup', event => {
      const [a, b] = [this._from ?? time(event), time(event)];
      this._from = null;
      if (Math.abs(b - a) > 0.02 * (this.axis.range[1] - this.axis.range[0])) {
        this.axis.brush([Math.min(a, b), Math.max(a, b)]);
      }
    });
    node.addEventListener('dblclick', () => this.axis.brush(null));
    node.addEventListener('keydown', event => {
      const [from, to] = this.axis.range;
      const step = event.key === 'ArrowLeft' ? -KEY_STEP_S : event.key === 'ArrowRight' ? KEY_STEP_S : 0;
      if (step !== 0) {
        this.axis.point(Math.min(to, Math.max(from, (this.axis.pointed ?? to) + step)));
        event.preventDefault();
      } else if (event.key === 'Escape') {
        this.axis.point(null);
        this.axis.brush(null);
      }
    });
    node.addEventListener('blur', () => this.axis.point(null));
  }

  private _from: number | null = null;
}

function trace(
  context: CanvasRenderingContext2D,
  stroke: IStroke,
  x: (time: number) => number,
  y: (value: number) => number,
  from: number,
  to: number,
  height: number
): void {
  const { times, values } = stroke.line;
  let run: [number, number][] = [];
  const flush = () => {
    if (run.length > 0) {
      context.beginPath();
      run.forEach(([px, py]) => context.lineTo(px, py));
      context.stroke();
      if (stroke.fill) {
        context.lineTo(run[run.length - 1][0], height);
        context.lineTo(run[0][0], height);
        context.globalAlpha = 0.15;
        context.fill();
        context.globalAlpha = 1;
      }
    }
    run = [];
  };
  for (let i = 0; i < times.length; i++) {
    const value = values[i];
    const near = (times[i + 1] ?? times[i]) >= from && (times[i - 1] ?? times[i]) <= to;
    if (value === null) {
      flush(); // a gap is a gap
    } else if (near) {
      run.push([x(times[i]), y(value)]);
    }
  }
  flush();
}

function rule(context: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
