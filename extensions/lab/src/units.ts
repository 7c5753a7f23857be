/** Numbers with their units, short enough for a narrow panel, and never broken between two lines. Unknown is a dash, not 0. */

export const UNKNOWN = '–';
const GAP = '\u00a0';

export function bytes(value: number | null): string {
  if (value === null) {
    return UNKNOWN;
  }
  const units: [string, number][] = [['TiB', 2 ** 40], ['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]];
  for (const [unit, scale] of units) {
    if (value >= scale) {
      return `${three(value / scale)}${GAP}${unit}`;
    }
  }
  return `${value.toFixed(0)}${GAP}B`;
}

export function percent(share: number | null): string {
  return share === null ? UNKNOWN : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}${GAP}%`;
}

export function duration(ns: number | null): string {
  if (ns === null) {
    return UNKNOWN;
  }
  const units: [string, number][] = [['s', 1e9], ['ms', 1e6], ['µs', 1e3]];
  for (const [unit, scale] of units) {
    if (ns >= scale) {
      return `${three(ns / scale)}${GAP}${unit}`;
    }
  }
  return `${ns.toFixed(0)}${GAP}ns`;
}

export function plain(value: number | null, unit: string): string {
  return value === null ? UNKNOWN : `${Number.isInteger(value) ? value : three(value)}${GAP}${unit}`;
}

/** Three significant digits. */
export function three(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
}
