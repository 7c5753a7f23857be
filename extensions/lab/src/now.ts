/** The section *Now*: the machine against its limits, and the steps of the loop that runs. */

import { Axis } from './chart';
import { h, setText } from './dom';
import { Meter } from './meter';
import { INow, Row } from './protocol';
import { Section } from './section';
import { at, ILine, latest, Series } from './series';
import { bytes, duration, percent, plain, three, UNKNOWN } from './units';

export const WARN = 0.8;
export const ALARM = 0.95;
const RATE_S = 5; // steps a second are counted over this

const MACHINE = '--jp-brand-color2';
const KERNEL = '--jp-accent-color1';
const STEPS = '--jp-success-color1';

const THROTTLE: [number, string][] = [
  [0x2, 'application clocks'],
  [0x4, 'power cap'],
  [0x8, 'hardware slowdown'],
  [0x10, 'sync boost'],
  [0x20, 'software thermal limit'],
  [0x40, 'hardware thermal limit'],
  [0x80, 'power brake'],
  [0x100, 'display clocks']
];

export class Now extends Section {
  constructor(private readonly _series: Series, private readonly _axis: Axis) {
    super('Now');
    this._warning = h('div', { class: 'mlsys-warning', role: 'alert' });
    this._warning.hidden = true;
    this._steps = new Meter(_axis, 'Step');
    this._loss = new Meter(_axis, 'Loss', true);
    this._cpu = new Meter(_axis, 'CPU');
    this._memory = new Meter(_axis, 'Memory');
    this._gpus = h('div', { class: 'mlsys-gpus' });
    this._other = h('div', { class: 'mlsys-detail mlsys-other' });
    this._time = h('div', { class: 'mlsys-axis', 'aria-hidden': 'true' });
    const key = h('div', { class: 'mlsys-key' }, h('span', { class: 'mlsys-key-kernel' }, 'this kernel'), h('span', { class: 'mlsys-key-machine' }, 'all in this container'));
    this.body.append(this._warning, key, this._steps.node, this._loss.node, this._gpus, this._cpu.node, this._memory.node, this._other, this._time);
    this._steps.node.hidden = this._loss.node.hidden = true;
  }

  /** With what has been sampled; nothing is read here. */
  update(now: INow): void {
    const series = this._series;
    if (series.empty) {
      return;
    }
    this.show(true);
    if (!this.shown) {
      return;
    }
    this._showSteps(now);
    this._showGpus(now);
    this._showCpu();
    this._showMemory();
    this._showOther();
    const [from, to] = this._axis.range;
    const pointed = this._axis.pointed;
    const said = pointed === null ? `last ${span(to - from)}` : `${span(series.present() - pointed)} ago`;
    setText(this._time, this._axis.brushed === null ? said : `${said} (enlarged ${span(to - from)})`);
  }

  private _read(line: ILine): number | null {
    const pointed = this._axis.pointed;
    return pointed === null ? latest(line) : at(line, pointed);
  }

  private _showSteps(now: INow): void {
    const series = this._series;
    const recent = series.stepsSince(RATE_S);
    const known = series.step > 0 && series.ofStep('time').times.length > 0;
    this._steps.node.hidden = !known;
    if (!known) {
      this._loss.node.hidden = true;
      return;
    }
    const wall = series.ofStep('wall');
    const pointed = this._axis.pointed;
    const running = pointed !== null || recent.length > 0;
    const ns = running ? this._read(wall) : null;
    const rate = ns === null ? null : pointed === null ? perSecond(recent, 1 + series.fields.step.indexOf('number')) ?? 1e9 / ns : 1e9 / ns;
    const data = share(series.ofStep('data'), wall, this._axis.pointed ?? series.clock);
    const mfu = now.flops === null || ns === null ? null : now.flops.step / (ns / 1e9) / now.flops.peak;
    const parts = [`waiting for data ${percent(running ? data : null)}`];
    if (mfu !== null) {
      parts.push(`MFU ${percent(mfu)} by the FLOPs last profiled`);
    }
    const top = 1.1 * Math.max(1, ...shownValues(wall, this._axis.range));
    const value = running ? `${duration(ns)}, ${rate === null ? UNKNOWN : three(rate)}/s` : 'no step now';
    this._steps.show(value, parts.join(' · '), [{ line: wall, colour: STEPS, fill: true }], top);
    const loss = series.ofStep('loss');
    const values = shownValues(loss, this._axis.range);
    this._loss.node.hidden = values.length === 0;
    if (values.length > 0) {
      const low = Math.min(...values);
      const shifted = { times: loss.times, values: loss.values.map(v => (v === null ? null : v - low)) };
      const last = this._read(loss);
      this._loss.show(last === null ? UNKNOWN : last.toPrecision(4), '', [{ line: shifted, colour: STEPS }], Math.max(1e-9, Math.max(...values) - low));
    }
  }

  private _showGpus(now: INow): void {
    if (this._meters.length !== now.gpus.length) {
      this._meters = now.gpus.map((gpu, i) => {
        const name = `GPU ${gpu.index}${gpu.mig ? ' (MIG)' : ''}`;
        const pair: [Meter, Meter] = [new Meter(this._axis, name), new Meter(this._axis, `${name} memory`)];
        pair[0].node.title = `${gpu.name} ${gpu.uuid}`;
        return pair;
      });
      this._gpus.replaceChildren(...this._meters.flatMap(pair => pair.map(meter => meter.node)));
      this._gpus.classList.toggle('mlsys-many', now.gpus.length > 2);
    }
    this._meters.forEach(([busy, memory], i) => {
      const of = (name: string) => this._series.gpu(i, name);
      const read = (name: string) => this._read(of(name));
      const used = read('utilisation');
      busy.show(
        percent(used === null ? null : used / 100),
        gpuDetail(read),
        [
          { line: of('utilisation'), colour: MACHINE, fill: true },
          { line: of('utilisation_kernel'), colour: KERNEL }
        ],
        100
      );
      const total = read('memory_total');
      const held = read('memory_used');
      // Where the driver's process ids cannot be told apart, torch's own count of the newest step stands in.
      const own = read('memory_kernel') ?? (i === 0 && this._meters.length === 1 ? this._read(this._series.ofStep('reserved')) : null);
      const parts =
        own === null
          ? 'of this kernel: not attributable'
          : `this kernel ${bytes(own)} · others ${bytes(held === null ? null : Math.max(0, held - own))} · free ${bytes(total === null || held === null ? null : total - held)}`;
      memory.show(
        `${bytes(held)} of ${bytes(total)}`,
        parts,
        [
          { line: of('memory_used'), colour: MACHINE, fill: true },
          { line: of('memory_kernel'), colour: KERNEL }
        ],
        1.05 * (total ?? 1),
        total,
        level(held, total)
      );
    });
  }

  private _showCpu(): void {
    const limit = this._read(this._series.host('cpu_limit'));
    const all = this._read(this._series.host('cpu'));
    const own = this._read(this._series.host('cpu_kernel'));
    const strokes = [
      { line: this._series.host('cpu'), colour: MACHINE, fill: true },
      { line: this._series.host('cpu_kernel'), colour: KERNEL }
    ];
    const value = `${all === null ? UNKNOWN : three(all)} of ${plain(limit, limit === 1 ? 'core' : 'cores')}`;
    this._cpu.show(value, `this kernel ${own === null ? UNKNOWN : three(own)}`, strokes, 1.05 * (limit ?? 1), limit);
  }

  private _showMemory(): void {
    const limit = this._read(this._series.host('memory_limit'));
    const all = this._read(this._series.host('memory'));
    const own = this._read(this._series.host('memory_kernel'));
    const near = level(all, limit);
    const strokes = [
      { line: this._series.host('memory'), colour: MACHINE, fill: true },
      { line: this._series.host('memory_kernel'), colour: KERNEL }
    ];
    this._memory.show(`${bytes(all)} of ${bytes(limit)}`, `this kernel ${bytes(own)}`, strokes, 1.05 * (limit ?? 1), limit, near);
    const now = latest(this._series.host('memory'));
    this._warning.hidden = level(now, limit) === '';
    if (now !== null && limit !== null && now >= WARN * limit) {
      this._warning.dataset.level = level(now, limit);
      setText(this._warning, `Memory is at ${percent(now / limit)} of the limit (${bytes(now)} of ${bytes(limit)}); at 100 % the kernel is killed. Free what you no longer need, or restart another kernel.`);
    }
  }

  private _showOther(): void {
    const read = (name: string) => this._read(this._series.host(name));
    const rate = (name: string) => `${bytes(read(name))}/s`;
    const parts = [`disk in ${rate('disk_read')}, out ${rate('disk_write')}`, `network in ${rate('net_in')}, out ${rate('net_out')}`];
    const faults = read('faults');
    if (faults !== null && faults >= 1) {
      parts.push(`${three(faults)} page faults/s from disk`);
    }
    for (const name of ['cpu', 'memory', 'io']) {
      const stalled = read(`stalled_${name}`);
      if (stalled !== null && stalled >= 10) {
        parts.push(`${stalled.toFixed(0)} % of the time something waits for ${name}`);
      }
    }
    const kills = read('oom_kills');
    if (kills !== null && kills > this._kills && this._kills >= 0) {
      parts.push('a process was just killed for want of memory');
    }
    this._kills = Math.max(this._kills, kills ?? 0);
    setText(this._other, parts.join(' · '));
  }

  private _kills = -1;
  private _meters: [Meter, Meter][] = [];
  private readonly _warning: HTMLElement;
  private readonly _steps: Meter;
  private readonly _loss: Meter;
  private readonly _cpu: Meter;
  private readonly _memory: Meter;
  private readonly _gpus: HTMLElement;
  private readonly _other: HTMLElement;
  private readonly _time: HTMLElement;
}

export function level(value: number | null, limit: number | null): string {
  if (value === null || limit === null || limit <= 0) {
    return '';
  }
  return value >= ALARM * limit ? 'alarm' : value >= WARN * limit ? 'warn' : '';
}

function gpuDetail(read: (name: string) => number | null): string {
  const parts = [];
  const own = read('utilisation_kernel');
  parts.push(own === null ? 'of this kernel: not attributable' : `this kernel ${own.toFixed(0)} %`);
  const power = read('power');
  if (power !== null) {
    const limit = read('power_limit');
    parts.push(`${power.toFixed(0)}${limit === null ? '' : ` of ${limit.toFixed(0)}`} W`);
  }
  const clock = read('clock');
  const most = read('clock_max');
  parts.push(...[plain(read('temperature'), '°C')].filter(text => text !== UNKNOWN));
  if (clock !== null) {
    parts.push(`${clock.toFixed(0)}${most === null ? '' : ` of ${most.toFixed(0)}`} MHz`);
  }
  const mask = read('throttle') ?? 0;
  const reasons = THROTTLE.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name);
  if (reasons.length > 0) {
    parts.push(`slowed by ${reasons.join(', ')}`);
  }
  for (const [name, label] of [['pcie', 'PCIe'], ['nvlink', 'NVLink']]) {
    const moved = [read(`${name}_in`), read(`${name}_out`)];
    if (moved.some(value => value !== null && value > 0)) {
      parts.push(`${label} in ${bytes(moved[0])}/s, out ${bytes(moved[1])}/s`);
    }
  }
  const errors = read('ecc_uncorrected');
  if (errors !== null && errors > 0) {
    parts.push(`${errors.toFixed(0)} uncorrected ECC errors`);
  }
  return parts.join(' · ');
}

/** Steps a second from the first of these rows to the last, by their numbers: of a fast loop not all are published. */
function perSecond(steps: Row[], number: number): number | null {
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const seconds = steps.length < 2 ? 0 : (last[1] as number) - (first[1] as number);
  const counted = seconds > 0 ? (last[number] as number) - (first[number] as number) : 0;
  return counted > 0 ? counted / seconds : null; // another clock counts from one again
}

/** Of the steps in the 10 s before a moment: time in `part` over time in all. */
function share(part: ILine, whole: ILine, until: number): number | null {
  let [sum, all] = [0, 0];
  for (let i = whole.times.length - 1; i >= 0 && whole.times[i] > until - 10; i--) {
    if (whole.times[i] <= until) {
      sum += part.values[i] ?? 0;
      all += whole.values[i] ?? 0;
    }
  }
  return all > 0 ? sum / all : null;
}

function shownValues(line: ILine, range: [number, number]): number[] {
  return line.values.filter((v, i): v is number => v !== null && line.times[i] >= range[0] && line.times[i] <= range[1]);
}

function span(seconds: number): string {
  return seconds < 100 ? `${Math.max(0, seconds).toFixed(0)} s` : `${(seconds / 60).toFixed(1)} min`;
}
