/** The samples a panel keeps: rows by time, of the ring they came from. Another ring (a restart) begins anew. */

import { INow, Row } from './protocol';

export const KEPT_S = 600;

/** One line of a chart: times in s on the kernel's monotonic clock, and values with gaps as null. */
export interface ILine {
  times: number[];
  values: (number | null)[];
}

export class Series {
  /** Sequence numbers of what we have, for the next question. */
  since = 0;
  step = 0;

  /** The kernel's clock at the last reply, and ours: the axis goes on between replies, whatever either wall clock does. */
  clock = 0;
  private _heard = 0;

  add(now: INow): void {
    if (now.ring !== this._ring) {
      this.clear();
      this._ring = now.ring;
    }
    this.fields = now.fields;
    this.gpus = now.gpus.length;
    this.clock = now.clock;
    this._heard = performance.now();
    for (const row of now.samples) {
      if ((row[0] ?? 0) > this.since) {
        this.since = row[0] as number;
        this._samples.push(row);
      }
    }
    for (const row of now.steps) {
      if ((row[0] ?? 0) > this.step) {
        this.step = row[0] as number;
        this._steps.push(row);
      }
    }
    drop(this._samples, this.clock - KEPT_S);
    drop(this._steps, this.clock - KEPT_S);
  }

  clear(): void {
    this.since = this.step = 0;
    this._samples = [];
    this._steps = [];
    this._ring = '';
  }

  /** The kernel's clock now. */
  present(): number {
    return this.clock + (performance.now() - this._heard) / 1000;
  }

  host(name: string): ILine {
    return this._line(this._samples, 1 + this.fields.host.indexOf(name), this.fields.host.includes(name));
  }

  gpu(index: number, name: string): ILine {
    const at = this.fields.gpu.indexOf(name);
    return this._line(this._samples, 1 + this.fields.host.length + index * this.fields.gpu.length + at, at >= 0);
  }

  ofStep(name: string): ILine {
    return this._line(this._steps, 1 + this.fields.step.indexOf(name), this.fields.step.includes(name));
  }

  get empty(): boolean {
    return this._samples.length === 0;
  }

  /** The step rows of the last seconds, newest last. */
  stepsSince(seconds: number): Row[] {
    const from = this.clock - seconds;
    return this._steps.filter(row => (row[1] ?? 0) >= from);
  }

  private _line(rows: Row[], at: number, known: boolean): ILine {
    return { times: rows.map(row => row[1] as number), values: rows.map(row => (known ? row[at] : null)) };
  }

  fields: INow['fields'] = { host: [], gpu: [], step: [] };
  gpus = 0;
  private _samples: Row[] = [];
  private _steps: Row[] = [];
  private _ring = '';
}

/** The newest value that was measured, if it is of the last seconds. */
export function latest(line: ILine, age: number = 5): number | null {
  const end = line.times[line.times.length - 1];
  for (let i = line.times.length - 1; i >= 0 && end - line.times[i] <= age; i--) {
    if (line.values[i] !== null) {
      return line.values[i];
    }
  }
  return null;
}

/** The value at a time: that of the last sample before it. */
export function at(line: ILine, time: number): number | null {
  for (let i = line.times.length - 1; i >= 0; i--) {
    if (line.times[i] <= time) {
      return line.values[i];
    }
  }
  return null;
}

function drop(rows: Row[], before: number): void {
  const keep = rows.findIndex(row => (row[1] ?? 0) >= before);
  rows.splice(0, keep === -1 ? rows.length : keep);
}
